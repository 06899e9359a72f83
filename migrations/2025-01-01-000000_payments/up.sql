-- Kinds and statuses are text with a CHECK instead of enumerated types: an enumerated type costs every new
-- connection a round trip to look up its number, and a value can never be taken out of it again.

CREATE TABLE settlements (
    id uuid PRIMARY KEY,
    asset text COLLATE "C" NOT NULL CHECK (asset ~ '^[A-Z0-9]{2,12}$'),
    -- Without a precision: the sum of many large amounts is wider than each of them.
    total numeric NOT NULL,
    transaction_count bigint NOT NULL CHECK (transaction_count > 0),
    status text COLLATE "C" NOT NULL CHECK (status IN ('open', 'paid')),
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    paid_at timestamptz,
    CHECK (period_start <= period_end),
    CHECK ((status = 'paid') = (paid_at IS NOT NULL))
);

CREATE INDEX settlements_by_time ON settlements (created_at DESC, id DESC);

CREATE TABLE transactions (
    id uuid PRIMARY KEY,
    account text COLLATE "C" NOT NULL CHECK (account ~ '^[!-~]{1,64}$'),
    amount numeric(38, 18) NOT NULL CHECK (amount > 0),
    asset text COLLATE "C" NOT NULL CHECK (asset ~ '^[A-Z0-9]{2,12}$'),
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('deposit', 'withdrawal')),
    status text COLLATE "C" NOT NULL
        CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'refunded')),
    provider text COLLATE "C" NOT NULL CHECK (provider ~ '^[!-~]{1,64}$'),
    provider_id text COLLATE "C" NOT NULL CHECK (provider_id ~ '^[!-~]{1,128}$'),
    metadata jsonb CHECK (jsonb_typeof(metadata) = 'object'),
    occurred_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    settlement_id uuid REFERENCES settlements (id),
    CONSTRAINT transactions_provider_id_key UNIQUE (provider, provider_id),
    -- What a settlement has summed stays as it was.
    CONSTRAINT transactions_settled_are_completed CHECK (settlement_id IS NULL OR status = 'completed')
);

CREATE INDEX transactions_by_account ON transactions (account, occurred_at DESC, id DESC);
CREATE INDEX transactions_by_time ON transactions (occurred_at DESC, id DESC);
-- Holds all that a balance needs, so that it is read from the index alone.
CREATE INDEX transactions_balance ON transactions (account, asset) INCLUDE (kind, amount)
    WHERE status = 'completed';
CREATE INDEX transactions_unsettled ON transactions (asset, occurred_at, id)
    WHERE settlement_id IS NULL AND status = 'completed';
CREATE INDEX transactions_by_settlement ON transactions (settlement_id)
    WHERE settlement_id IS NOT NULL;

CREATE TABLE callbacks (
    provider text COLLATE "C" NOT NULL CHECK (provider ~ '^[!-~]{1,64}$'),
    idempotency_key text COLLATE "C" NOT NULL CHECK (idempotency_key ~ '^[!-~]{1,128}$'),
    transaction_id uuid NOT NULL REFERENCES transactions (id),
    request_digest bytea NOT NULL CHECK (octet_length(request_digest) = 32),
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, idempotency_key)
);

CREATE TABLE audit_log (
    id bigserial PRIMARY KEY,
    entity text COLLATE "C" NOT NULL CHECK (entity IN ('transaction', 'settlement')),
    entity_id uuid NOT NULL,
    action text COLLATE "C" NOT NULL CHECK (action ~ '^[!-~]{1,64}$'),
    actor text COLLATE "C" NOT NULL CHECK (actor ~ '^[!-~]{1,64}$'),
    details jsonb,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX audit_log_by_entity ON audit_log (entity, entity_id, id DESC);

CREATE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is append only' USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse();
