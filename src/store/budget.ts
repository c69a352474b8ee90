/**
 * Budget: how much the data directory may take, and who may write how much of it.
 *
 * Three kinds of bytes count: what the store holds (builds and packs), what others report (cache, spools),
 * and what is reserved for fetches that are under way. The rule:
 *
 * - A fetch may write beyond the budget, since nothing is evicted for a build that may never be complete;
 *   but never more than could be made to fit: all that is reserved plus all that cannot be evicted now
 *   (sticky, leased) stays within the budget. What breaks that is refused with NoRoom before it is
 *   written, and nothing is evicted.
 * - Only one fetch at a time goes beyond the budget; another one that has to waits for its turn.
 * - When a fetch is complete, `settle` evicts until everything is within the budget.
 * - A file system that is really full cannot wait for that: builds are evicted at once.
 */
import { NoRoom } from '../errors.ts'
import { type Disk, realDisk } from '../lib/disk.ts'
import { Mutex } from '../lib/mutex.ts'
import { formatSize } from '../lib/units.ts'
import { type RoomAnswer, RoomDesk, type RoomQuestion } from './room.ts'

/** Grants are at least this large where there is room: few questions, and little reserved in vain. */
const GRANT_BYTES = 64 * 2 ** 20

/** What a file system must keep free while we write: manifests, the other services' logs. */
const DISK_RESERVE_BYTES = 64 * 2 ** 20

/** Whoever can evict builds. All of them are asked for only when the budget is short. */
export interface Evictor {
  /** Bytes that no eviction could free now: sticky builds and those in use, shared blobs once. */
  heldBytes(): Promise<number>
  /**
   * Frees at least so many bytes, none of them blobs in `incoming` (digests of a build that is about to be
   * published). @throws NoRoom, having evicted nothing, when that's impossible.
   */
  evict(bytes: number, incoming?: Uint8Array): Promise<void>
}

/** The room that a build could have. Plain data: it crosses into worker threads. */
export interface MostRoom {
  /** At the most, with everything else gone. */
  readonly bytes: number
  /** Of builds and packs: a new build needs no more room for what it has in common with them. */
  readonly storedBytes: number
  /** What sets the limit, for people. */
  readonly because: string
}

export interface BudgetOptions {
  limit: number
  /** A directory on the file system that holds the data directory. */
  path: string
  /** Bytes of builds and packs. */
  stored: () => number
  evictor: Evictor
  /** Frees so many bytes, if it can, of what can be had again: gives way before any build does. */
  dropSpare?: (bytes: number) => Promise<void>
  disk?: Disk
  /** Bytes that the file system has left for us; for tests. */
  diskFree?: () => Promise<number>
}

export class Budget {
  #limit: number
  readonly #stored: () => number
  readonly #evictor: Evictor
  readonly #dropSpare: (bytes: number) => Promise<void>
  readonly #diskFree: () => Promise<number>
  /** Bytes that others report, by what they are for. */
  readonly #charges = new Map<string, number>()
  readonly #rooms = new Set<Room>()
  /** The one that may go beyond the budget, and those that wait for it to end. */
  #beyond: Room | undefined
  readonly #waiting: { room: Room; resume: () => void }[] = []
  /** One finds out what is missing and frees it at a time: else each of them would free the same bytes. */
  readonly #freeing = new Mutex()

  constructor(options: BudgetOptions) {
    this.#limit = options.limit
    this.#stored = options.stored
    this.#evictor = options.evictor
    this.#dropSpare = options.dropSpare ?? (async () => {})
    this.#diskFree =
      options.diskFree ??
      (async () => {
        const { bavail, bsize } = await (options.disk ?? realDisk).statfs(options.path)
        return bavail * bsize
      })
  }

  /** The most bytes that the data directory may take. `enforce` makes room when it was lowered. */
  get limit(): number {
    return this.#limit
  }
  set limit(bytes: number) {
    this.#limit = bytes
  }

  /** What there could be for a build if everything else went: what is beyond that need not be tried. */
  async most(): Promise<MostRoom> {
    const { limit, used } = this
    const free = await this.#diskFree()
    const storedBytes = this.#stored()
    if (limit <= used + free)
      return { bytes: limit, storedBytes, because: `the budget is ${formatSize(limit)}` }
    const because = `the disk has ${formatSize(free)} free, and all that is here takes ${formatSize(used)}`
    return { bytes: used + free, storedBytes, because }
  }

  /** Sets what something outside builds and packs takes: "cache", "spools". */
  charge(what: string, bytes: number): void {
    this.#charges.set(what, bytes)
  }

  /** Bytes that others report, by what they are for. */
  get charges(): ReadonlyMap<string, number> {
    return this.#charges
  }

  /** Bytes that the data directory takes, without what fetches under way write. */
  get used(): number {
    let bytes = this.#stored()
    for (const charge of this.#charges.values()) bytes += charge
    return bytes
  }

  /** Bytes granted to fetches under way. */
  get reserved(): number {
    let bytes = 0
    for (const room of this.#rooms) bytes += room.granted
    return bytes
  }

  /** An account for one fetch. It must be closed. */
  openRoom(id: string): Room {
    const room: Room = new Room(id, {
      reserve: (bytes) => this.#reserve(room, bytes),
      makeDiskRoom: () => this.#freeFor(room, () => this.#diskIsFull()),
      settle: (written, incoming) =>
        this.#settle(room, written, incoming).catch(async (error) => {
          throw await this.#inItsTerms(room, error)
        }),
      closed: () => this.#close(room),
    })
    this.#rooms.add(room)
    return room
  }

  /** Evicts until `used` is within the budget; for start and after the budget was changed. */
  async enforce(): Promise<void> {
    await this.#evictExcess(() => this.used - this.limit)
  }

  /** Decides and grants without an await in between, so that two fetches never get the same bytes. */
  async #reserve(room: Room, bytes: number): Promise<number> {
    const generous = Math.max(bytes, GRANT_BYTES)
    let granted = bytes
    // Nothing needs to be waited for or counted to know this.
    if (room.granted + bytes > this.limit) throw this.#noRoom(room, bytes, 0)
    if (this.#fits(generous)) {
      granted = generous
    } else if (!this.#fits(bytes)) {
      await this.#goBeyond(room)
      const held = await this.#evictor.heldBytes()
      const available = this.limit - held - this.reserved
      if (bytes > available) throw this.#noRoom(room, bytes, held)
      granted = Math.min(generous, available)
    }
    room.granted += granted
    try {
      await this.#makeDiskRoom(room, bytes)
    } catch (error) {
      room.granted -= granted
      throw error
    }
    return granted
  }

  #fits(bytes: number): boolean {
    return this.used + this.reserved + bytes <= this.limit
  }

  /** Waits until no other fetch is beyond the budget. */
  async #goBeyond(room: Room): Promise<void> {
    while (this.#beyond && this.#beyond !== room) {
      room.waitsFor = this.#beyond.id
      await new Promise<void>((resume) => this.#waiting.push({ room, resume }))
      room.waitsFor = undefined
      if (!this.#rooms.has(room)) throw givenUp(room)
    }
    this.#beyond = room
  }

  /**
   * Before so many bytes are written. What the file system should keep free beyond them is a wish: where
   * evicting does not get it, what is really free decides.
   */
  async #makeDiskRoom(room: Room, bytes: number): Promise<void> {
    const missing = async (): Promise<number> => bytes + DISK_RESERVE_BYTES - (await this.#diskFree())
    if ((await missing()) > 0) await this.#freeFor(room, () => this.#freeOnDisk(bytes, missing))
  }

  /** When its turn comes, the fetch may have ended: then nothing goes for it, least of all what it left to go on with. */
  #freeFor(room: Room, free: () => Promise<void>): Promise<void> {
    return this.#freeing.run(async () => {
      if (!this.#rooms.has(room)) throw givenUp(room)
      await free()
    })
  }

  async #freeOnDisk(bytes: number, missing: () => Promise<number>): Promise<void> {
    const atFirst = await missing()
    if (atFirst <= 0) return
    await this.#dropSpare(atFirst)
    const left = await missing()
    if (left <= 0) return
    if (await this.#tryEvict(left)) return
    const needed = left - DISK_RESERVE_BYTES
    if (needed <= 0 || (await this.#tryEvict(needed))) return
    const free = await this.#diskFree()
    if (free < bytes) {
      throw new NoRoom(`the disk is full: ${formatSize(free)} are free, ${formatSize(bytes)} are needed`, {
        hint: 'Something else takes the room: see `df` and `du` on the file system of data_dir.',
      })
    }
  }

  /**
   * A write was refused for want of room. The file system may say that plenty is free (quotas, inodes), so
   * something goes in any case: a grant's worth, or at least what goes first.
   */
  async #diskIsFull(): Promise<void> {
    const before = this.used
    await this.#dropSpare(GRANT_BYTES)
    const missing = GRANT_BYTES - (before - this.used)
    if (missing <= 0 || (await this.#tryEvict(missing)) || this.used < before) return
    if (await this.#tryEvict(1)) return
    throw new NoRoom('the disk is full, and nothing is left that could be evicted', {
      hint: 'Something else takes the room: see `df`, `df -i` and `quota` for the file system of data_dir.',
    })
  }

  /** False when so many bytes cannot be freed. */
  async #tryEvict(bytes: number): Promise<boolean> {
    try {
      await this.#evictor.evict(bytes)
      return true
    } catch (error) {
      if (error instanceof NoRoom) return false
      throw error
    }
  }

  /** The fetch is complete and wrote so many bytes: makes it fit. */
  async #settle(room: Room, written: number, incoming: Uint8Array): Promise<void> {
    room.granted = written
    const excess = (): number => this.used + this.reserved - this.limit
    if (excess() <= 0) return
    await this.#goBeyond(room)
    await this.#evictExcess(excess, incoming)
  }

  /** Spare bytes first, then builds. `excess` is asked again, as others come and go meanwhile. */
  async #evictExcess(excess: () => number, incoming?: Uint8Array): Promise<void> {
    await this.#freeing.run(async () => {
      if (excess() > 0) await this.#dropSpare(excess())
      const left = excess()
      if (left > 0) await this.#evictor.evict(left, incoming)
    })
  }

  #close(room: Room): void {
    this.#rooms.delete(room)
    if (this.#beyond === room) this.#beyond = undefined
    // All look again: one of them goes, the others go back to waiting, those that were closed give up.
    for (const { resume } of this.#waiting.splice(0)) resume()
  }

  /** An evictor knows neither the build nor the budget; who reads the refusal has to. */
  async #inItsTerms(room: Room, error: unknown): Promise<unknown> {
    if (!(error instanceof NoRoom) || !this.#rooms.has(room)) return error
    return this.#noRoom(room, 0, await this.#evictor.heldBytes(), error)
  }

  #noRoom(room: Room, bytes: number, held: number, cause?: NoRoom): NoRoom {
    const need = room.granted + bytes
    const more = need - this.limit
    // Where both would read the same, the difference says more.
    const isClose = more > 0 && formatSize(need) === formatSize(this.limit)
    const needs = isClose
      ? `build ${room.id} needs at least ${formatSize(more)} more than there can be`
      : `build ${room.id} needs at least ${formatSize(need)}`
    const others = this.reserved - room.granted
    const taken = [
      held > 0 ? `${formatSize(held)} are sticky or in use` : '',
      others > 0 ? `${formatSize(others)} are reserved for other fetches` : '',
    ].filter((part) => part !== '')
    const budget = `the budget is ${formatSize(this.limit)}`
    return new NoRoom(
      `${needs}; ${taken.length > 0 ? `${budget}, of which ${taken.join(' and ')}` : budget}`,
      {
        hint: 'Raise `budget`, or unpin builds.',
        cause,
      },
    )
  }
}

interface RoomOwner {
  reserve(bytes: number): Promise<number>
  makeDiskRoom(): Promise<void>
  settle(written: number, incoming: Uint8Array): Promise<void>
  closed(): void
}

/** One fetch's account. `memory` goes to the worker thread, which makes a RoomClient of it. */
export class Room {
  readonly id: string
  /** Bytes that this fetch may have written. */
  granted = 0
  /** The fetch that must end before this one may go beyond the budget. */
  waitsFor: string | undefined
  readonly #owner: RoomOwner
  readonly #desk: RoomDesk

  constructor(id: string, owner: RoomOwner) {
    this.id = id
    this.#owner = owner
    this.#desk = new RoomDesk((question) => this.#answer(question))
  }

  get memory(): SharedArrayBuffer {
    return this.#desk.memory
  }

  /** The thread has ended and wrote so many bytes: what it was granted beyond that is free again. */
  wrote(bytes: number): void {
    this.granted = Math.min(this.granted, bytes)
  }

  /** As a thread asks through `memory`, for what the main thread writes by itself. @throws NoRoom. */
  async reserve(bytes: number): Promise<void> {
    await this.#owner.reserve(bytes)
  }

  /**
   * Makes everything fit, evicting builds; right before `Store.publish`. `written`: bytes that the fetch
   * takes in the end; `incoming`: digests of the blobs that the build needs. @throws NoRoom.
   */
  async settle(written: number, incoming: Uint8Array): Promise<void> {
    await this.#owner.settle(written, incoming)
  }

  /**
   * What this fetch wrote is being published: the store counts it from now on. Until it does, for a moment
   * nobody counts it; counted twice, it would make another fetch evict for bytes that are not there.
   */
  handOver(): void {
    this.granted = 0
  }

  /** The fetch is given up: nothing more is granted, and a thread that waits for an answer wakes. */
  abandon(): void {
    this.#desk.abandon()
  }

  /** The fetch has ended: what it wrote is published, and counted by the store, or gone. */
  close(): void {
    this.#desk.close()
    this.#owner.closed()
  }

  async #answer(question: RoomQuestion): Promise<RoomAnswer> {
    if (question.type === 'disk-full') {
      await this.#owner.makeDiskRoom()
      return { granted: 1 }
    }
    return { granted: await this.#owner.reserve(question.bytes) }
  }
}

function givenUp({ id }: Room): NoRoom {
  return new NoRoom(`the fetch of build ${id} was given up`)
}
