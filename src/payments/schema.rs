// @generated automatically by Diesel CLI.

diesel::table! {
    account_balances (account, asset) {
        account -> Text,
        asset -> Text,
        balance -> Numeric,
    }
}

diesel::table! {
    audit_log (id) {
        id -> Int8,
        entity -> Text,
        entity_id -> Uuid,
        action -> Text,
        actor -> Text,
        details -> Nullable<Jsonb>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    callbacks (provider, idempotency_key) {
        provider -> Text,
        idempotency_key -> Text,
        transaction_id -> Uuid,
        request_digest -> Bytea,
        received_at -> Timestamptz,
    }
}

diesel::table! {
    settlements (id) {
        id -> Uuid,
        asset -> Text,
        total -> Numeric,
        transaction_count -> Int8,
        status -> Text,
        period_start -> Timestamptz,
        period_end -> Timestamptz,
        created_at -> Timestamptz,
        paid_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    transactions (id) {
        id -> Uuid,
        account -> Text,
        amount -> Numeric,
        asset -> Text,
        kind -> Text,
        status -> Text,
        provider -> Text,
        provider_id -> Text,
        metadata -> Nullable<Jsonb>,
        occurred_at -> Timestamptz,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        settlement_id -> Nullable<Uuid>,
    }
}

diesel::joinable!(callbacks -> transactions (transaction_id));
diesel::joinable!(transactions -> settlements (settlement_id));

diesel::allow_tables_to_appear_in_same_query!(
    account_balances,
    audit_log,
    callbacks,
    settlements,
    transactions,
);
