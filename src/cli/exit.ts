/** Exit codes, as sysexits.h has them. docs and upserv(1) list the same. */
export const EXIT = { ok: 0, failed: 1, usage: 64, unavailable: 69, internal: 70, config: 78 } as const
