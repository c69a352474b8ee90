/**
 * Manifests in memory: loaded when first needed, once for all who wait, and dropped again when there are
 * too many, those unused the longest first. Who holds a Manifest keeps it; dropping only means forgetting.
 */
import type { Manifest } from './manifest.ts'

/** Room for about 50 builds of 40,000 entries. */
export const MANIFEST_CACHE_BYTES = 256 * 2 ** 20

export class ManifestCache {
  readonly #limit: number
  /** The longest unused first. */
  readonly #held = new Map<string, Manifest>()
  readonly #loading = new Map<string, Promise<Manifest>>()
  #bytes = 0

  constructor(limit = MANIFEST_CACHE_BYTES) {
    this.#limit = limit
  }

  get(id: string, load: () => Promise<Manifest>): Promise<Manifest> {
    const held = this.#held.get(id)
    if (held) {
      this.#held.delete(id)
      this.#held.set(id, held)
      return Promise.resolve(held)
    }
    const loading = this.#loading.get(id)
    if (loading) return loading
    const promise = load()
      .then((manifest) => {
        // Forgotten meanwhile: whoever waits gets it, but it is not kept.
        if (this.#loading.get(id) === promise) this.#keep(id, manifest)
        return manifest
      })
      .finally(() => {
        if (this.#loading.get(id) === promise) this.#loading.delete(id)
      })
    this.#loading.set(id, promise)
    return promise
  }

  forget(id: string): void {
    this.#loading.delete(id)
    const held = this.#held.get(id)
    if (!held) return
    this.#held.delete(id)
    this.#bytes -= held.byteLength
  }

  #keep(id: string, manifest: Manifest): void {
    this.#held.set(id, manifest)
    this.#bytes += manifest.byteLength
    for (const oldest of this.#held.keys()) {
      // The newest stays even if it is larger than all the room: it is about to be used.
      if (this.#bytes <= this.#limit || oldest === id) return
      this.forget(oldest)
    }
  }
}
