"""The admin API below /admin/v1: teams, keys, what was done to them, what calls used, and one's own key.

Knows HTTP: bodies, query parameters, conditional and repeated requests. Who may do what is decided by
`gateway.access.administration`.
"""

from gateway.http.admin.app import admin_app, admin_router
from gateway.http.admin.authentication import PREFIX, Authenticate
from gateway.http.admin.ledger_terms import LedgerDesk

__all__ = ["PREFIX", "Authenticate", "LedgerDesk", "admin_app", "admin_router"]
