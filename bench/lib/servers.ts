/** The two that are compared, each with a meter on it: upserv and the stock daemon, over the same builds. */
import assert from 'node:assert/strict'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../../test/support/processes.ts'
import { startRsyncd } from '../../test/support/rsyncd.ts'
import { startUpserv, UPSERV, upserv } from '../../test/support/upserv.ts'
import { type Build, HOME } from './data.ts'
import { Meter } from './meter.ts'

export type ServerKind = 'rsyncd' | 'upserv'

/** How the two are called in tables. */
export const SERVER_NAMES: Readonly<Record<ServerKind, string>> = {
  rsyncd: 'rsync --daemon',
  upserv: 'upserv',
}

export interface Server extends AsyncDisposable {
  readonly kind: ServerKind
  readonly port: number
  readonly pid: number
  readonly meter: Meter
}

/** An import takes seconds; of the largest build that is measured, a minute or two. */
const IMPORT_MS = 20 * 60_000

/** Serves each build as module `build-<id>` with the tree under `root`, as upserv does. */
export async function startStock(builds: readonly Build[]): Promise<Server> {
  const scratch = join(HOME, 'run', 'rsyncd')
  mkdirSync(scratch, { recursive: true })
  const modules = builds.map(({ id, directory }) => [`build-${id}`, { path: directory }] as const)
  const daemon = await startRsyncd({ scratch, modules: Object.fromEntries(modules) })
  const meter = new Meter(daemon.process.child.pid!)
  return {
    kind: 'rsyncd',
    port: daemon.port,
    pid: meter.pid,
    meter,
    [Symbol.asyncDispose]: async () => {
      await daemon.stop()
      await meter[Symbol.asyncDispose]()
    },
  }
}

/** A data directory that holds the builds and nothing that was worked out of them yet. */
export async function fillData(name: string, builds: readonly Build[]): Promise<string> {
  const data = join(HOME, 'run', name)
  rmSync(data, { recursive: true, force: true })
  for (const { tar, id } of builds) await importBuild(data, tar, id)
  return data
}

/** `upserv import`, through the running server where there is one. */
export async function importBuild(data: string, tar: string, id: string): Promise<void> {
  await command(data, ['import', tar, '--as', id], IMPORT_MS)
}

/** Runs a subcommand, which must end well. */
export async function command(data: string, args: readonly string[], timeoutMs?: number): Promise<void> {
  const options = timeoutMs === undefined ? {} : { timeoutMs }
  const { code, stderr, command } = await upserv([...args, '--data', data], options)
  assert.equal(code, 0, `${command}\n${stderr}`)
}

/** Forgets what was worked out for clients, as if no client had ever come. */
export function forgetCaches(data: string): void {
  rmSync(join(data, 'cache'), { recursive: true, force: true })
}

/** Whether this upserv can prepare an update ahead of its first client. */
export async function canWarm(): Promise<boolean> {
  return /^ {2}warm\b/m.test((await run(UPSERV, ['--help'])).stdout)
}

/** The stock daemon knows no limit; ours would have all but 200 wait in line. */
const NO_LIMIT = '[rsync]\nmax_connections = 10000\n'

export async function startOurs(data: string, env: NodeJS.ProcessEnv = {}): Promise<Server> {
  const config = `${data}.toml`
  writeFileSync(config, NO_LIMIT)
  const server = await startUpserv({ data, budget: '1TB', config, env })
  const meter = new Meter(server.process.child.pid!)
  return {
    kind: 'upserv',
    port: server.port,
    pid: meter.pid,
    meter,
    [Symbol.asyncDispose]: async () => {
      await server.stop()
      await meter[Symbol.asyncDispose]()
    },
  }
}
