DROP TRIGGER transactions_forget_balances ON transactions;
DROP TRIGGER transactions_change_balances ON transactions;
DROP FUNCTION account_balances_forget();
DROP FUNCTION account_balances_follow();
DROP TABLE account_balances;
