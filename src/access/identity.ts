/** Who a client is, as far as anybody has proven: what rules judge. A connection's `Peer` is one before a login. */
export interface Identity {
  /** As `normalizeAddress` gives it; undefined when nobody knows it, and then no rule on addresses lets it in. */
  readonly address: string | undefined
  /** Names of devices that its certificate proves, the one that logs show first; none without a certificate. */
  readonly devices: readonly string[]
  /** Whether nobody on the way can read or change what is said. */
  readonly tls: boolean
  /** Who it has proven to be; undefined as long as it has not. */
  readonly user?: string | undefined
}
