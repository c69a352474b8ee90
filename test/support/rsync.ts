/**
 * The real rsync client, as a device runs it: by name from PATH, or the one that RSYNC names (an old
 * release, for instance).
 */
import assert from 'node:assert/strict'
import { type RunOptions, type RunResult, run } from './processes.ts'

/** Every version that the server speaks; a current client can be held to any of them. */
export const PROTOCOLS = [27, 28, 29, 30, 31, 32] as const

export const RSYNC = process.env.RSYNC ?? 'rsync'

/** What `--stats` says at the end. Bytes, unless named otherwise. */
export interface RsyncStats {
  files: number
  created: number
  deleted: number
  transferred: number
  totalSize: number
  transferredSize: number
  literal: number
  matched: number
  listSize: number
  sent: number
  received: number
}

export interface RsyncOptions extends RunOptions {
  protocol?: number
  /** Another client than `RSYNC`. */
  program?: string
}

/** Runs the client. Locale and time zone are fixed, so that listings are the same everywhere. */
export function rsync(args: readonly string[], options: RsyncOptions = {}): Promise<RunResult> {
  const { protocol, program = RSYNC, env, ...rest } = options
  const forced = protocol === undefined ? [] : [`--protocol=${protocol}`]
  const clean = { PATH: process.env.PATH, HOME: '/nonexistent', LC_ALL: 'C', TZ: 'UTC', ...env }
  return run(program, [...forced, ...args], { ...rest, env: clean })
}

/** Runs the client and fails, with all that it said, unless it ends with `code` (0 unless told). */
export async function rsyncEnds(
  code: number,
  args: readonly string[],
  options: RsyncOptions = {},
): Promise<RunResult> {
  const result = await rsync(args, options)
  assert.equal(result.code, code, `${result.command}\n${result.stdout}${result.stderr}`)
  return result
}

/** Runs the client, which must end well and say nothing on stderr. */
export async function rsyncSucceeds(args: readonly string[], options: RsyncOptions = {}): Promise<RunResult> {
  const result = await rsyncEnds(0, args, options)
  assert.equal(result.stderr, '', `${result.command} ended well but complained`)
  return result
}

/** Reads the block that `--stats` printed. */
export function parseStats(stdout: string): RsyncStats {
  const number = (label: string): number => {
    const match = new RegExp(`^${label}: ([\\d,.]+)`, 'm').exec(stdout)
    assert.ok(match, `no "${label}" in the statistics:\n${stdout}`)
    return Number(match[1]!.replaceAll(/[,.]/g, ''))
  }
  /** Lines that a client leaves out where the protocol is too old for them. */
  const optional = (label: string): number => (stdout.includes(`${label}:`) ? number(label) : 0)
  return {
    files: number('Number of files'),
    created: optional('Number of created files'),
    deleted: optional('Number of deleted files'),
    transferred: number('Number of regular files transferred'),
    totalSize: number('Total file size'),
    transferredSize: number('Total transferred file size'),
    literal: number('Literal data'),
    matched: number('Matched data'),
    listSize: number('File list size'),
    sent: number('Total bytes sent'),
    received: number('Total bytes received'),
  }
}
