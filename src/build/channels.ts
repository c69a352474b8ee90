/**
 * Channels: names such as "stable" that stand for a build, as the configuration says.
 *
 * A device polls the module `channels` with `rsync -a`, which takes a file of equal size and mtime for
 * unchanged, and 803 has the size of 802. So the file's mtime is the time since when the channel has meant
 * this build. That time is kept in the data directory: equal for as long as the build is the same, whatever
 * is restarted, and never one that this channel has had before, whatever the clock does. What is written
 * there about a channel stays when the configuration drops it, for the day it comes back.
 */

import { z } from 'zod'
import { StoreCorrupt } from '../errors.ts'
import type { Disk } from '../lib/disk.ts'
import { replaceFile } from '../store/durable.ts'
import { channelOfModule, isBuildId, moduleOf } from './build-id.ts'

/** Seconds between two meanings of a channel, at least: FAT counts in twos, and `--modify-window=1` forgives one. */
const STEP_S = 2

/** A channel and the build that it stands for. */
export interface Channel {
  readonly name: string
  readonly id: string
  /** Seconds since 1970: since when it has meant this build. */
  readonly since: number
}

/** What is kept of a channel, by its name. */
export type ChannelRecords = Readonly<Record<string, { readonly id: string; readonly since: number }>>

const recordsSchema = z.record(
  z.string().refine(isBuildId),
  z.object({ id: z.string().refine(isBuildId), since: z.int().nonnegative() }),
)

/** What is to be kept from now on. The same object when nothing has changed. */
export function noteChannels(
  kept: ChannelRecords,
  configured: Readonly<Record<string, string>>,
  now: number,
): ChannelRecords {
  const changed: Record<string, { id: string; since: number }> = {}
  for (const [name, id] of Object.entries(configured)) {
    const before = Object.hasOwn(kept, name) ? kept[name] : undefined
    if (before?.id === id) continue
    changed[name] = { id, since: Math.max(now, before === undefined ? 0 : before.since + STEP_S) }
  }
  return Object.keys(changed).length === 0 ? kept : { ...kept, ...changed }
}

export class Channels {
  #configured: Readonly<Record<string, string>>
  readonly #disk: Disk
  readonly #path: string
  readonly #now: () => Date
  #records: ChannelRecords
  #isKept: boolean

  private constructor(
    configured: Readonly<Record<string, string>>,
    disk: Disk,
    path: string,
    records: ChannelRecords,
    now: () => Date,
  ) {
    this.#configured = {}
    this.#disk = disk
    this.#path = path
    this.#now = now
    this.#records = records
    this.#isKept = true
    this.use(configured)
  }

  /** Gives names other meanings; sessions under way go on with what they began with. `keep` keeps them. */
  use(configured: Readonly<Record<string, string>>): void {
    const seconds = Math.max(0, Math.floor(this.#now().getTime() / 1000))
    const records = noteChannels(this.#records, configured, seconds)
    this.#isKept &&= records === this.#records
    this.#records = records
    this.#configured = configured
  }

  /**
   * Reads what is kept; writes nothing, as commands that only look come here too.
   * @param path of the file in the data directory, which is ours alone.
   * @param onProblem told of a file that can't be read; all channels then count as new.
   */
  static async open(
    configured: Readonly<Record<string, string>>,
    disk: Disk,
    path: string,
    onProblem: (problem: Error) => void,
    now: () => Date = () => new Date(),
  ): Promise<Channels> {
    const kept = await readRecords(disk, path).catch((error: Error) => {
      onProblem(error)
      return {}
    })
    return new Channels(configured, disk, path, kept, now)
  }

  /** Makes what devices will be told last. @throws NoRoom, StoreError. */
  async keep(): Promise<void> {
    if (this.#isKept) return
    const records = this.#records
    const text = `${JSON.stringify(records, null, 2)}\n`
    await replaceFile(this.#disk, this.#path, Buffer.from(text), 'channels')
    this.#isKept = records === this.#records
  }

  /** By name. */
  all(): Channel[] {
    return Object.keys(this.#configured)
      .sort()
      .map((name) => ({ name, ...this.#records[name]! }))
  }

  get(name: string): Channel | undefined {
    return Object.hasOwn(this.#configured, name) ? { name, ...this.#records[name]! } : undefined
  }

  /** The modules whose rules hold for a module: itself, and of a channel's the build's that it stands for. */
  ruledBy(module: string): readonly string[] {
    const channel = this.get(channelOfModule(module) ?? '')
    return channel ? [module, moduleOf(channel.id)] : [module]
  }
}

/** @throws StoreCorrupt when it is not what was written; what the file system says. */
async function readRecords(disk: Disk, path: string): Promise<ChannelRecords> {
  let text: string
  try {
    text = (await disk.readFile(path)).toString()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {}
    throw error
  }
  try {
    return recordsSchema.parse(JSON.parse(text))
  } catch (cause) {
    throw new StoreCorrupt(`${path} does not say what the channels were: they count as new`, { cause })
  }
}
