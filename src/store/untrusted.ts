/**
 * Which copies of blobs are not to be trusted: they were read and were not what their digests say.
 *
 * packs/untrusted lists them, one a line: the pack's file name, a blank, the digest in hex. A sealed pack
 * never changes, so this stands beside it. Such a copy is not entered into the index, so the blob counts
 * as lost until another copy comes in; its bytes are dead weight, and go when the pack is rewritten. Names
 * of packs are never used twice, so lines of packs that are gone mean nothing; they are left out when the
 * file is written again.
 */
import type { Disk } from '../lib/disk.ts'
import { codeOf } from './disk-error.ts'
import { replaceFile } from './durable.ts'

const LINE = /^([0-9a-f]+\.pack) ([0-9a-f]{64})$/

export class Untrusted {
  readonly #disk: Disk
  readonly #path: string
  /** Digests in hex, by file name of the pack. */
  readonly #digests = new Map<string, Set<string>>()

  private constructor(disk: Disk, path: string) {
    this.#disk = disk
    this.#path = path
  }

  /** Lines that make no sense are passed over: what they said is found out again. */
  static async load(disk: Disk, path: string): Promise<Untrusted> {
    const untrusted = new Untrusted(disk, path)
    try {
      for (const line of (await disk.readFile(path)).toString('latin1').split('\n')) {
        const [, pack, digest] = LINE.exec(line) ?? []
        if (pack && digest) untrusted.#note(pack, digest)
      }
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
    }
    return untrusted
  }

  /** The digests, in hex, of the copies in a pack that are not to be trusted. */
  in(pack: string): ReadonlySet<string> {
    return this.#digests.get(pack) ?? NONE
  }

  /** Durable when this returns. */
  async add(copies: Iterable<{ pack: string; digest: string }>): Promise<void> {
    for (const { pack, digest } of copies) this.#note(pack, digest)
    const lines = [...this.#digests].flatMap(([pack, digests]) =>
      [...digests].map((digest) => `${pack} ${digest}\n`),
    )
    await replaceFile(this.#disk, this.#path, Buffer.from(lines.join('')), 'untrusted')
  }

  /** The pack is gone. */
  forget(pack: string): void {
    this.#digests.delete(pack)
  }

  #note(pack: string, digest: string): void {
    const digests = this.#digests.get(pack)
    if (digests) digests.add(digest)
    else this.#digests.set(pack, new Set([digest]))
  }
}

const NONE: ReadonlySet<string> = new Set()
