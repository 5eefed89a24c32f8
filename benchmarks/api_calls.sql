-- What the service writes for one API call, by the same role and under the same row-level security: two inserts, one transaction.
BEGIN;
SELECT set_config('saasbase.organizations', '{' || :organization || '}', true);
INSERT INTO api_calls (id, organization_id, project_id, name, operation_key, request_digest, status, requested_at, request_payload,
                       response_payload, metadata, created_at, updated_at, created_by_subject, revision)
VALUES (gen_random_uuid(), CAST(:organization AS uuid), CAST(:project AS uuid), 'call', 'ocr', repeat('0', 64), 'RECEIVED', now(),
        '{"page": 1}', '{}', '{}', now(), now(), :subject, 1);
INSERT INTO audit_events (id, occurred_at, organization_id, project_id, actor_type, actor_id, auth_method, action, outcome,
                          resource_type, resource_id, ip, user_agent, request_id, details)
VALUES (gen_random_uuid(), now(), CAST(:organization AS uuid), CAST(:project AS uuid), 'USER', 'alice', 'header', 'API_CALL_CREATED',
        'SUCCESS', 'API_CALL', gen_random_uuid(), '127.0.0.1', 'pgbench', md5(random()::text),
        '{"name": "call", "operation_key": "ocr", "status": "RECEIVED"}');
COMMIT;
