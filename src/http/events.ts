/**
 * Server-sent events: whoever watches hears what goes on, without asking.
 *
 *     activity   who is connected, what is being fetched, sums: once a second while somebody watches
 *     builds     the list of builds, when it has changed
 *     session    one has ended
 *     fetch      one has ended
 *
 * What is told is made once for all who see the same (view.ts). Who does not read gets less, and is hung up on in the end.
 */
import type { ServerResponse } from 'node:http'
import type { Activity } from '../build/activity.ts'
import type { Operations } from '../build/operations.ts'
import { RequestError } from '../errors.ts'
import type { BuildsView } from './builds-view.ts'
import { activityFor, type View } from './view.ts'

const EVERY_MS = 1000
/** Who watches at a time; each costs a connection and some memory. */
const MAX_WATCHERS = 100
/** Bytes that wait to be read by one who watches: no more is sent until they are. */
const MAX_BACKLOG = 512 * 1024
/** One who has read nothing for so long is gone. */
const MAX_SILENCE_MS = 30_000

interface Watcher {
  response: ServerResponse
  /** What it is shown now: rules and sessions change while it watches. */
  view: () => View
  /** Since when nothing could be sent; undefined when all is well. */
  stuckSince: number | undefined
}

export class Events {
  readonly #operations: Operations
  readonly #builds: BuildsView
  readonly #now: () => number
  readonly #watchers = new Set<Watcher>()
  #timer: NodeJS.Timeout | undefined
  #telling = false
  /** As it was told last, by standing. */
  readonly #lastBuilds = new Map<string, string>()

  /** @param now milliseconds on a clock that never jumps. */
  constructor(
    operations: Operations,
    activity: Activity,
    builds: BuildsView,
    now: () => number = () => performance.now(),
  ) {
    this.#now = now
    this.#operations = operations
    this.#builds = builds
    activity.events.on('session', (record) => this.#tellAll('session', (view) => view.record(record)))
    activity.events.on('fetch', (end) => this.#tellAll('fetch', (view) => view.fetchEnds([end])[0]))
  }

  get watchers(): number {
    return this.#watchers.size
  }

  /** Takes a response over, until its client leaves. @throws RequestError when too many watch. */
  watch(response: ServerResponse, view: () => View): void {
    if (this.#watchers.size >= MAX_WATCHERS)
      throw new RequestError(503, `${MAX_WATCHERS} watch already`, {
        hint: 'Ask for /api/v1/activity now and then.',
      })
    const watcher: Watcher = { response, view, stuckSince: undefined }
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no', // nginx would keep it back
    })
    response.write('retry: 2000\n\n')
    this.#watchers.add(watcher)
    response.once('close', () => {
      this.#watchers.delete(watcher)
      if (this.#watchers.size > 0) return
      clearInterval(this.#timer)
      this.#timer = undefined
    })
    this.#lastBuilds.clear() // whoever comes wants to know
    this.#timer ??= setInterval(() => void this.#tell(), EVERY_MS)
    void this.#tell()
  }

  /** Ends all streams, as the server does. */
  close(): void {
    clearInterval(this.#timer)
    for (const { response } of this.#watchers) response.end()
    this.#watchers.clear()
  }

  async #tell(): Promise<void> {
    if (this.#telling) return
    this.#telling = true
    try {
      const [activity, held] = [await this.#operations.activity(), await this.#builds.get()]
      this.#tellAll('activity', (view) => {
        // What has ended has been told already, and is asked for with the first look.
        const { recent: _recent, recentFetches: _fetches, ...now } = activityFor(view, activity, held)
        return now
      })
      this.#tellAll('builds', (view) => {
        const builds = view.builds(held)
        const text = JSON.stringify(builds)
        if (text === this.#lastBuilds.get(view.standing)) return undefined
        // Standings come and go with the rules.
        if (this.#lastBuilds.size > MAX_WATCHERS) this.#lastBuilds.clear()
        this.#lastBuilds.set(view.standing, text)
        return builds
      })
    } catch {
      // The store is failing, or closing: status and log tell of it. The next second may bring more.
    } finally {
      this.#telling = false
    }
  }

  /** @param make what those of a view are told; undefined for nothing. */
  #tellAll(event: string, make: (view: View) => unknown): void {
    if (this.#watchers.size === 0) return
    const texts = new Map<string, string | undefined>()
    const now = this.#now()
    for (const watcher of this.#watchers) {
      const { response } = watcher
      const view = watcher.view()
      if (!texts.has(view.standing)) {
        const told = make(view)
        texts.set(
          view.standing,
          told === undefined ? undefined : `event: ${event}\ndata: ${JSON.stringify(told)}\n\n`,
        )
      }
      const text = texts.get(view.standing)
      if (text === undefined) continue
      if (response.writableLength < MAX_BACKLOG) {
        // It may have missed the builds.
        if (watcher.stuckSince !== undefined) this.#lastBuilds.clear()
        watcher.stuckSince = undefined
        response.write(text)
        continue
      }
      watcher.stuckSince ??= now
      if (now - watcher.stuckSince > MAX_SILENCE_MS) response.destroy()
    }
  }
}
