/**
 * Activity: what goes on now, what has just happened, and what it all added up to since the start. It is told
 * by whoever does something, and tells whoever watches; nothing here does anything.
 */
import { EventEmitter } from 'node:events'
import type { FetchEnd } from '../history/fetch-record.ts'
import type { SessionRecord } from '../history/session-record.ts'
import { SLOT_S, Timeline } from '../lib/timeline.ts'
import type { SessionStatus, TimelineReport, TimelineSpan, Totals, VerificationStatus } from './operations.ts'

/** What is remembered of those that ended. */
export const RECENT = 50
/** Sessions that are told of at a time. */
export const MAX_SHOWN = 200
/** Points of a plot, and slots of ten seconds that each stands for. */
const SPANS: Record<TimelineSpan, { points: number; per: number }> = {
  hour: { points: 360, per: 1 },
  day: { points: 288, per: 30 },
}

/** Whoever knows those who are connected. */
export interface Clients {
  /** The latest first. @param before only those with lower numbers. */
  live(most: number, before?: number): SessionStatus[]
  isLive(id: number): boolean
  /** What they have been sent so far, all together. */
  sent(): { bytesOut: number; contentBytes: number }
}

/** What is told to who watches, by name. */
export interface ActivityEvents {
  session: [SessionRecord]
  fetch: [FetchEnd]
  /** Which builds there are, or something about one, may have changed. */
  builds: []
}

export class Activity {
  readonly events = new EventEmitter<ActivityEvents>()
  readonly recent: SessionRecord[] = []
  readonly recentFetches: FetchEnd[] = []
  readonly totals: Totals
  /** Set by whoever verifies. */
  verification: VerificationStatus | null = null
  /** Set by the server: knows those who are connected. */
  clients: Clients = { live: () => [], isLive: () => false, sent: () => ({ bytesOut: 0, contentBytes: 0 }) }
  readonly #now: () => Date
  readonly #timeline: Timeline
  /** What live sessions had sent when they were looked at last. */
  #seen = { bytesOut: 0, asked: 0 }

  constructor(now: () => Date = () => new Date()) {
    this.#now = now
    // Each open page listens.
    this.events.setMaxListeners(0)
    this.#timeline = new Timeline(3, now().getTime() / 1000)
    this.totals = {
      since: now().toISOString(),
      sessions: { done: 0, listed: 0, refused: 0, 'peer-error': 0, lost: 0, failed: 0 },
      ...{ bytesIn: 0, bytesOut: 0, files: 0, matchedBytes: 0, literalBytes: 0 },
      ...{ searched: 0, prepared: 0, reused: 0 },
      fetches: { done: 0, failed: 0, stopped: 0 },
      ...{ fetchedBytes: 0, evicted: 0 },
    }
  }

  /** @param remember whether a person would want to see it. */
  sessionEnded(record: SessionRecord, remember = true): void {
    const { totals } = this
    totals.sessions[record.outcome]++
    totals.bytesIn += record.bytesIn
    totals.bytesOut += record.bytesOut
    totals.files += record.files
    totals.matchedBytes += record.matchedBytes
    totals.literalBytes += record.literalBytes
    totals.searched += record.searched
    totals.prepared += record.prepared
    totals.reused += record.reused
    this.sample(1)
    if (remember) keepLatest(this.recent, record)
    this.events.emit('session', record)
    if (record.build !== '') this.events.emit('builds')
  }

  fetchEnded(end: FetchEnd): void {
    this.totals.fetches[end.outcome]++
    this.totals.fetchedBytes += end.receivedBytes
    keepLatest(this.recentFetches, end)
    this.events.emit('fetch', end)
    this.events.emit('builds')
  }

  buildEvicted(): void {
    this.totals.evicted++
    this.events.emit('builds')
  }

  /** Notes what was sent since it was called last, for the timeline. Called now and then, and when a session ends. */
  sample(ended = 0): void {
    const { totals } = this
    const live = this.clients.sent()
    const bytesOut = totals.bytesOut + live.bytesOut
    const asked = totals.matchedBytes + totals.literalBytes + live.contentBytes
    this.#timeline.add(this.#now().getTime() / 1000, [
      bytesOut - this.#seen.bytesOut,
      asked - this.#seen.asked,
      ended,
    ])
    this.#seen = { bytesOut, asked }
  }

  timeline(span: TimelineSpan): TimelineReport {
    this.sample()
    const { points, per } = SPANS[span]
    const read = this.#timeline.read(this.#now().getTime() / 1000, points, per)
    return {
      start: new Date(read.startS * 1000).toISOString(),
      stepSeconds: per * SLOT_S,
      points: read.points.map(([bytesOut, askedBytes, sessions]) => ({
        bytesOut: bytesOut!,
        askedBytes: askedBytes!,
        sessions: sessions!,
      })),
    }
  }
}

/** The latest first. */
function keepLatest<T>(list: T[], item: T): void {
  list.unshift(item)
  if (list.length > RECENT) list.pop()
}
