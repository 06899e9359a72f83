DROP TABLE audit_log;
DROP FUNCTION audit_log_refuse();
DROP TABLE callbacks;
DROP TABLE transactions;
DROP TABLE settlements;
