/** `upserv list`, `available`, `status` and `gc`: what they print. */
import type { AvailableBuilds, BuildSummary, GcReport, Status } from '../build/operations.ts'
import type { Config } from '../config/config.ts'
import { showJson, showText } from '../lib/bytes.ts'
import { formatDuration, formatSize } from '../lib/units.ts'
import { withOperations } from './operations.ts'
import { formatTable, paint, print, shortTime } from './text.ts'

export async function listCommand(config: Config, { json }: { json?: boolean }): Promise<void> {
  const builds = await withOperations(config, (operations) => operations.list())
  print(json ? showJson(builds) : formatList(builds))
}

export async function availableCommand(config: Config, { json }: { json?: boolean }): Promise<void> {
  const { signal } = new AbortController() // ^C ends the process
  const available = await withOperations(config, (operations) => operations.available(signal))
  print(json ? showJson(available) : formatAvailable(available))
}

export async function statusCommand(config: Config, { json }: { json?: boolean }): Promise<void> {
  const status = await withOperations(config, (operations) => operations.status())
  print(json ? showJson(status) : formatStatus(status))
}

export async function gcCommand(
  config: Config,
  { json, dryRun = false, explain = false }: { json?: boolean; dryRun?: boolean; explain?: boolean },
): Promise<void> {
  const report = await withOperations(config, (operations) => operations.gc({ dryRun, explain }))
  print(json ? showJson(report) : formatGc(report))
}

export function formatList(builds: readonly BuildSummary[]): string {
  if (builds.length === 0) return 'No builds are held.'
  const rows = builds.map((build) => [
    build.id,
    String(build.files),
    formatSize(build.bytes),
    formatSize(build.storedBytes),
    shortTime(build.accessed),
    shortTime(build.fetched),
    build.source,
    build.checkedBy,
    [build.sticky ? 'sticky' : '', build.inUse ? 'in use' : '', build.damaged === null ? '' : 'damaged']
      .filter(Boolean)
      .join(', '),
  ])
  return formatTable([
    ['BUILD', 'FILES', 'SIZE', 'FREES', 'ACCESSED', 'FETCHED', 'SOURCE', 'CHECKED BY', ''],
    ...rows,
  ])
}

function formatAvailable({ builds, gaps }: AvailableBuilds): string {
  const rows = builds.map(({ id, source, published, url }) => [
    id,
    source,
    published === null ? '' : shortTime(published),
    url,
  ])
  const table = [['BUILD', 'SOURCE', 'PUBLISHED', 'URL'], ...rows]
  return [
    rows.length > 0 ? formatTable(table) : 'No source tells of any build.',
    ...gaps.map(({ source, reason }) => `There may be more: ${source} ${showText(reason)}.`),
  ].join('\n')
}

export function formatStatus(status: Status): string {
  const doors = [...status.listening.map((address) => `rsync://${address}`), ...status.httpUrls]
  const lines = [
    `upserv ${status.version}, pid ${status.pid}, up ${formatDuration(status.uptimeSeconds * 1000)}`,
    `listening   ${doors.join(' ') || 'no'}`,
    `data        ${status.dataDir}`,
    `used        ${formatSize(status.usedBytes)} of ${formatSize(status.budgetBytes)}, ${status.builds} ${status.builds === 1 ? 'build' : 'builds'}`,
    `sessions    ${status.sessions}, of them ${status.inLine} in line`,
  ]
  if (status.damaged.length > 0) lines.push(`damaged     ${paint('red', status.damaged.join(', '))}`)
  for (const fetch of status.fetches) {
    const size =
      fetch.totalBytes === null
        ? formatSize(fetch.receivedBytes)
        : `${formatSize(fetch.receivedBytes)} of ${formatSize(fetch.totalBytes)}`
    lines.push(
      `fetching    ${fetch.id} from ${fetch.source}: ${fetch.phase}, ${size}, ${fetch.waiting} waiting`,
    )
  }
  return lines.join('\n')
}

function formatGc(report: GcReport): string {
  const verb = report.dryRun ? 'would be' : 'was'
  const evicted = report.evicted.length > 0 ? `: ${report.evicted.join(', ')}` : ''
  return [
    `${formatSize(report.usedBytes)} of ${formatSize(report.budgetBytes)} are used.`,
    ...report.spare.map(
      ({ what, name, bytes }) =>
        `${what === 'cache' ? `The cache ${name}` : `The download of build ${name} that broke off`} would go first: ${formatSize(bytes)}.`,
    ),
    `${report.evicted.length} builds ${report.dryRun ? 'would be' : 'were'} evicted${evicted}; ${formatSize(report.freedBytes)} ${verb} freed.`,
    ...(report.builds.length > 0 ? [formatVerdicts(report)] : []),
  ].join('\n')
}

/** Who goes first comes first. */
function formatVerdicts({ builds, dryRun }: GcReport): string {
  const rows = builds.map(({ id, goes, reason, accessed, freesBytes }) => [
    id,
    goes ? (dryRun ? 'goes' : 'went') : 'stays',
    formatSize(freesBytes),
    shortTime(accessed),
    reason,
  ])
  return `\n${formatTable([['BUILD', '', 'FREES', 'ACCESSED', 'WHY'], ...rows])}`
}
