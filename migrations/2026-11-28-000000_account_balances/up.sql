-- The sum of each account's completed transactions, kept by the server in the transaction that changes it. So it is exact
-- whatever program writes, and a balance costs the same however many transactions there are.

CREATE TABLE account_balances (
    account text COLLATE "C" NOT NULL,
    asset text COLLATE "C" NOT NULL,
    -- Without a precision, as the total of a settlement.
    balance numeric NOT NULL,
    PRIMARY KEY (account, asset)
)
-- A row changes with each transaction; room on its page keeps the new version out of the index.
WITH (fillfactor = 50);

CREATE FUNCTION account_balances_follow() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    change record;
BEGIN
    FOR change IN
        SELECT moved.account, moved.asset, sum(moved.amount) AS amount
        FROM (
            SELECT NEW.account, NEW.asset, CASE NEW.kind WHEN 'deposit' THEN NEW.amount ELSE -NEW.amount END AS amount
            WHERE TG_OP <> 'DELETE' AND NEW.status = 'completed'
            UNION ALL
            SELECT OLD.account, OLD.asset, CASE OLD.kind WHEN 'deposit' THEN -OLD.amount ELSE OLD.amount END
            WHERE TG_OP <> 'INSERT' AND OLD.status = 'completed'
        ) AS moved
        GROUP BY moved.account, moved.asset
        -- The order in which rows are locked is the same in all transactions.
        ORDER BY moved.account, moved.asset
    LOOP
        INSERT INTO account_balances AS known (account, asset, balance)
        VALUES (change.account, change.asset, change.amount)
        ON CONFLICT (account, asset) DO UPDATE SET balance = known.balance + excluded.balance;
    END LOOP;
    RETURN NULL;
END
$$;

CREATE TRIGGER transactions_change_balances
    AFTER INSERT OR DELETE OR UPDATE OF account, asset, kind, amount, status ON transactions
    FOR EACH ROW EXECUTE FUNCTION account_balances_follow();

CREATE FUNCTION account_balances_forget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE account_balances;
    RETURN NULL;
END
$$;

CREATE TRIGGER transactions_forget_balances AFTER TRUNCATE ON transactions
    FOR EACH STATEMENT EXECUTE FUNCTION account_balances_forget();

-- The triggers above lock the table until this migration commits, so nothing is missed in between.
INSERT INTO account_balances (account, asset, balance)
SELECT account, asset, sum(CASE kind WHEN 'deposit' THEN amount ELSE -amount END)
FROM transactions
WHERE status = 'completed'
GROUP BY account, asset;
