/** What derived data is kept in, as the protocol sees it. cache/ fills it. */

/** Gives memory for at least so many bytes; or none, and then all who read them at the same time share theirs. */
export type TakeMemory = (size: number) => Buffer | undefined

/** Keeps bytes under keys for as long as it can; may forget any of them at any time. */
export interface Kept {
  /**
   * The bytes, which must not be changed; at once when they are in memory. Undefined when there is nothing under
   * the key, or not any more.
   * @param key 16 bytes or more, of which as good as no two are equal: a cryptographic hash.
   * @param take memory to copy them into, where they have to be copied.
   */
  get(key: Uint8Array, take?: TakeMemory): Uint8Array | undefined | Promise<Uint8Array | undefined>
  /**
   * The bytes of a small record when they can be had at once, or undefined. They last until the next call of this, and
   * no longer than the caller's turn.
   */
  peek(key: Uint8Array): Uint8Array | undefined
  /** Keeps a copy of `bytes` in place of what is there; or doesn't, and says so: too much may be on its way to the disk. */
  put(key: Uint8Array, bytes: Uint8Array): boolean
  /** Who puts a lot in a row, and nobody waits for it, waits for this in between, so that nothing is left out. */
  readonly ready?: Promise<void>
}
