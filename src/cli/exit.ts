/** Exit codes, as sysexits.h has them. docs/operations.md lists the same. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 64,
  unavailable: 69,
  internal: 70,
  unchanged: 75,
  config: 78,
  interrupted: 130,
} as const
