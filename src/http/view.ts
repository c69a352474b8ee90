/**
 * What one who looks by HTTP is shown. The operator sees everything. Anybody else sees what the rules would let
 * the listing of modules show, and of devices nothing that says who they are: no users, no addresses, none of
 * their words. Nothing here is a right to have anything: files.ts asks for that itself.
 */
import { moduleOf, moduleOfChannel } from '../build/build-id.ts'
import type {
  Activity,
  AvailableBuilds,
  BuildSummary,
  FetchStatus,
  SessionStatus,
  Status,
  VerificationStatus,
} from '../build/operations.ts'
import type { FetchEnd } from '../history/fetch-record.ts'
import type { SessionFacts, SessionRecord } from '../history/session-record.ts'
import type { Visitor } from '../rsync/access.ts'

export interface View {
  /** Those of equal standing see the same. */
  readonly standing: string
  readonly isOperator: boolean
  builds(all: readonly BuildSummary[]): readonly BuildSummary[]
  /** @param held those that are held. */
  status(status: Status, held: readonly { id: string }[]): Status
  sessions(all: readonly SessionStatus[]): SessionStatus[]
  fetches(all: readonly FetchStatus[]): FetchStatus[]
  fetchEnds(all: readonly FetchEnd[]): FetchEnd[]
  /** Undefined for one that nobody should hear of. */
  record(record: SessionRecord): SessionRecord | undefined
  available(available: AvailableBuilds): AvailableBuilds
  verification(verification: VerificationStatus | null): VerificationStatus | null
}

/** All of it. */
export const OPERATORS_VIEW: View = {
  standing: 'operator',
  isOperator: true,
  builds: (all) => all,
  status: (status) => status,
  sessions: (all) => [...all],
  fetches: (all) => [...all],
  fetchEnds: (all) => [...all],
  record: (record) => record,
  available: (available) => available,
  verification: (verification) => verification,
}

/** What anybody sees who comes from where this one does. */
export function viewOf(visitor: Visitor): View {
  const shows = (module: string): boolean => visitor.listing(module) !== undefined
  const showsBuild = (id: string): boolean => shows(moduleOf(id))
  const showsSession = ({ module, build }: SessionFacts): boolean =>
    (module === '' || shows(module)) && (build === '' || showsBuild(build))
  const ofShown = <T extends { id: string }>(all: readonly T[]): T[] => all.filter(({ id }) => showsBuild(id))
  return {
    standing: visitor.standing,
    isOperator: false,
    builds: (all) =>
      ofShown(all).map((build) => ({
        ...build,
        channels: build.channels.filter((name) => shows(moduleOfChannel(name))),
      })),
    status: (status, held) => ({
      ...status,
      builds: ofShown(held).length,
      damaged: status.damaged.filter(showsBuild),
      fetches: ofShown(status.fetches),
    }),
    sessions: (all) => all.filter(showsSession).map(withoutWho),
    fetches: ofShown,
    fetchEnds: ofShown,
    record: (record) => (showsSession(record) ? withoutWho(record) : undefined),
    available: ({ builds, gaps }) => ({
      builds: builds.filter(({ id, source }) => showsBuild(id) && visitor.mayHearOf(source)),
      gaps: gaps.filter(({ source }) => visitor.mayHearOf(source)),
    }),
    verification: (verification) => {
      if (!verification || (verification.id !== null && !showsBuild(verification.id))) return null
      const { report } = verification
      return {
        ...verification,
        report: report && {
          ...report,
          damaged: ofShown(report.damaged).map((build) => ({ ...build, files: [] })),
        },
      }
    },
  }
}

/** As this one sees it. */
export function activityFor(view: View, activity: Activity, held: readonly { id: string }[]): Activity {
  return {
    ...activity,
    status: view.status(activity.status, held),
    sessions: view.sessions(activity.sessions),
    recent: activity.recent.flatMap((record) => view.record(record) ?? []),
    recentFetches: view.fetchEnds(activity.recentFetches),
    verification: view.verification(activity.verification),
  }
}

/** What of a session says nothing of who it was. What is not named here is not shown. */
const OF_NOBODY: ReadonlySet<string> = new Set([
  ...['id', 'began', 'ended', 'module', 'build', 'protocol', 'codec', 'digest', 'outcome', 'code', 'state'],
  ...['place', 'progress', 'ms', 'waitedMs', 'stateMs', 'bytesIn', 'bytesOut', 'entries', 'listedBytes'],
  ...['files', 'newFiles', 'newBytes', 'matchedBytes', 'literalBytes', 'searched', 'prepared', 'reused'],
])

function withoutWho<T extends SessionFacts>(session: T): T {
  const shown = Object.entries(session).map(([key, value]) => [
    key,
    OF_NOBODY.has(key) ? value : blankOf(value),
  ])
  return Object.fromEntries(shown) as T
}

/** Nothing, of the same kind: what reads it finds what it expects. */
function blankOf(value: unknown): unknown {
  if (Array.isArray(value)) return []
  if (typeof value === 'boolean') return false
  return typeof value === 'string' ? '' : typeof value === 'number' ? 0 : null
}
