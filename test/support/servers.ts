/**
 * The server that the interop tests talk to: upserv, or with INTEROP_SERVER=rsyncd the stock daemon.
 *
 * Both offer the same modules, `build-<id>` with the tree under `root/`. A test that fails against the
 * stock daemon is wrong; one that passes there and fails against upserv found something.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeArchive } from './archive.ts'
import { startRsyncd } from './rsyncd.ts'
import { makeScratch, type Scratch } from './scratch.ts'
import { type Snapshot, snapshot } from './snapshot.ts'
import { makeTree, type TreeSpec } from './tree.ts'
import { startUpserv, type Upserv } from './upserv.ts'

export type ServerKind = 'rsyncd' | 'upserv'

export const SERVER_KIND: ServerKind = process.env.INTEROP_SERVER === 'rsyncd' ? 'rsyncd' : 'upserv'

/** A server with builds, and room for clients to sync into. */
export interface TestServer {
  readonly kind: ServerKind
  /** `rsync://127.0.0.1:PORT` */
  readonly url: string
  readonly port: number
  /** The tree on disk from which a build was made. */
  treeOf(id: string): string
  /** What a client must end up with. */
  snapshotOf(id: string): Snapshot
  /** A fresh path below the scratch directory; `make` creates the directory. */
  place(name: string, make?: 'make'): string
  /** The same builds behind the stock daemon, to compare texts with. Started when first asked for. */
  stock(): Promise<{ url: string }>
  /** Only of upserv. */
  readonly upserv: Upserv | undefined
  stop(): Promise<void>
}

/** Makes the builds on disk, publishes them and starts the server. */
export async function startServer(
  builds: Readonly<Record<string, TreeSpec>>,
  kind: ServerKind = SERVER_KIND,
  options: ServerOptions = {},
): Promise<TestServer> {
  const scratch = makeScratch('interop')
  try {
    return await startIn(scratch, builds, kind, options)
  } catch (error) {
    scratch[Symbol.dispose]()
    throw error
  }
}

interface ServerOptions {
  /** Archives carry extended attributes and ACLs. */
  xattrs?: boolean
  /** What else is done to a tree before it is published. */
  decorate?: (id: string, tree: string) => void
  /** The stock daemon confines its sessions (see `startRsyncd`). */
  chroot?: boolean
}

async function startIn(
  scratch: Scratch,
  builds: Readonly<Record<string, TreeSpec>>,
  kind: ServerKind,
  options: ServerOptions,
): Promise<TestServer> {
  const directory = (...names: string[]): string => {
    const path = join(scratch.path, ...names)
    mkdirSync(path, { recursive: true })
    return path
  }
  const ids = Object.keys(builds)
  const moduleDir = (id: string): string => join(scratch.path, 'modules', `build-${id}`)
  const treeOf = (id: string): string => join(moduleDir(id), 'root')
  const snapshots = new Map<string, Snapshot>()
  const snapshotOf = (id: string): Snapshot => {
    const known = snapshots.get(id) ?? snapshot(treeOf(id))
    snapshots.set(id, known)
    return known
  }
  for (const id of ids) {
    directory('modules', `build-${id}`)
    makeTree(treeOf(id), builds[id]!)
    options.decorate?.(id, treeOf(id))
    writeFileSync(join(moduleDir(id), 'contents'), `build ${id}\n`)
  }

  const startStock = (): ReturnType<typeof startRsyncd> =>
    startRsyncd({
      scratch: directory('rsyncd'),
      chroot: options.chroot ?? false,
      modules: Object.fromEntries(ids.map((id) => [`build-${id}`, { path: moduleDir(id) }])),
    })
  const startOurs = async (): Promise<Upserv> => {
    const upstream = directory('upstream')
    for (const id of ids) {
      await makeArchive({
        tree: treeOf(id),
        path: join(upstream, id),
        suffix: 'tar.gz',
        xattrs: options.xattrs ?? false,
      })
    }
    return startUpserv({ data: join(scratch.path, 'data'), sources: [`file://${upstream}/{build}.tar.gz`] })
  }

  let stock: ReturnType<typeof startRsyncd> | undefined
  let upserv: Upserv | undefined
  if (kind === 'rsyncd') stock = startStock()
  else upserv = await startOurs()
  const { port } = upserv ?? (await stock!)
  let places = 0
  return {
    kind,
    port,
    url: `rsync://127.0.0.1:${port}`,
    treeOf,
    snapshotOf,
    place: (name, make) => {
      const path = join(directory('clients'), `${++places}-${name}`)
      if (make) mkdirSync(path)
      return path
    },
    stock: async () => {
      stock ??= startStock()
      return { url: `rsync://127.0.0.1:${(await stock).port}` }
    },
    upserv,
    stop: async () => {
      try {
        await upserv?.stop()
        await (await stock)?.stop()
      } finally {
        scratch[Symbol.dispose]()
      }
    },
  }
}
