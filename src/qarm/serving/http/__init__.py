"""HTTP of the service: routes, request parsing, problem documents, middleware, OpenAPI."""
