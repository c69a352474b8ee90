/**
 * OpenStack Swift, whose proxy speaks S3: a bucket of a real object store, with its own view of signatures,
 * ranges and listings. One server of each kind, on one directory.
 */
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { AwsClient } from 'aws4fetch'
import { findProgram } from '../../src/lib/find-program.ts'
import { freePort, run, ServerProcess, waitForPort } from './processes.ts'

const STORES = ['object', 'container', 'account'] as const
const [ACCOUNT, USER, PASSWORD] = ['test', 'tester', 'secret-of-tests']
const START_MS = 60_000

/** Why there is none; false when there is. */
export const noSwift =
  (await Promise.all(['swift-proxy-server', 'memcached'].map((name) => findProgram(name)))).includes(
    undefined,
  ) && 'needs Swift: apt-get install swift-proxy swift-object swift-container swift-account memcached'

export interface Swift {
  readonly port: number
  /** `http://127.0.0.1:PORT` */
  readonly url: string
  /** As S3 has them. */
  readonly credentials: { accessKeyId: string; secretAccessKey: string }
  makeBucket(name: string): Promise<void>
  put(bucket: string, key: string, bytes: Uint8Array): Promise<void>
  stop(): Promise<void>
}

export async function startSwift(scratch: string): Promise<Swift> {
  const conf = (name: string, text: string): string => {
    const path = join(scratch, name)
    writeFileSync(path, text)
    return path
  }
  mkdirSync(join(scratch, 'devices', 'one'), { recursive: true })
  conf(
    'swift.conf',
    '[swift-hash]\nswift_hash_path_suffix = tests\nswift_hash_path_prefix = tests\n[storage-policy:0]\nname = one\ndefault = yes\n',
  )
  const common = (port: number): string =>
    `[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = ${port}\nuser = ${process.env.USER ?? 'root'}\nworkers = 0\nswift_dir = ${scratch}\nlog_address = /nonexistent\n`
  const servers: ServerProcess[] = []
  const start = async (kind: string, port: number, path: string): Promise<void> => {
    const server = new ServerProcess(`swift-${kind}-server`, [path])
    servers.push(server)
    // Python reads many files first: on a busy machine that takes a while.
    await waitForPort(port, server, START_MS)
  }
  const stop = async (): Promise<void> => {
    await Promise.all(servers.map((server) => server.stop('SIGKILL')))
  }
  try {
    // Its users' tokens lie there.
    const cache = await freePort()
    const memcached = new ServerProcess('memcached', ['-u', 'root', '-l', '127.0.0.1', '-p', String(cache)])
    servers.push(memcached)
    await waitForPort(cache, memcached)
    await Promise.all(
      STORES.map(async (kind) => {
        const port = await freePort()
        const builder = join(scratch, `${kind}.builder`)
        // One partition, one copy: ring building is what takes the time.
        await ring(builder, 'create', '1', '1', '0')
        await ring(builder, 'add', `r1z1-127.0.0.1:${port}/one`, '1')
        await ring(builder, 'rebalance')
        const path = conf(
          `${kind}-server.conf`,
          `${common(port)}devices = ${join(scratch, 'devices')}\nmount_check = false\nfallocate_reserve = 0\n[pipeline:main]\npipeline = ${kind}-server\n[app:${kind}-server]\nuse = egg:swift#${kind}\n`,
        )
        await start(kind, port, path)
      }),
    )
    const port = await freePort()
    const filters = ['catch_errors', 'cache', 'listing_formats', 's3api', 'tempauth', 'slo', 'dlo']
    const uses: Record<string, string> = { cache: 'memcache' }
    const keys: Record<string, string> = {
      cache: `memcache_servers = 127.0.0.1:${cache}\n`,
      tempauth: `user_${ACCOUNT}_${USER} = ${PASSWORD} .admin\n`,
    }
    const sections = filters.map(
      (name) => `[filter:${name}]\nuse = egg:swift#${uses[name] ?? name}\n${keys[name] ?? ''}`,
    )
    const path = conf(
      'proxy-server.conf',
      `${common(port)}[pipeline:main]\npipeline = ${filters.join(' ')} proxy-server\n[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n${sections.join('')}`,
    )
    await start('proxy', port, path)
    const url = `http://127.0.0.1:${port}`
    const credentials = { accessKeyId: `${ACCOUNT}:${USER}`, secretAccessKey: PASSWORD }
    const client = new AwsClient({ ...credentials, service: 's3', region: 'us-east-1', retries: 0 })
    const put = async (path: string, body?: Uint8Array<ArrayBuffer>): Promise<void> => {
      const answer = await client.fetch(`${url}/${path}`, { method: 'PUT', ...(body ? { body } : {}) })
      assert.ok(answer.ok, `${path}: ${answer.status} ${await answer.text()}`)
    }
    return {
      port,
      url,
      credentials,
      makeBucket: (name) => put(name),
      put: (bucket, key, bytes) =>
        put(`${bucket}/${key.split('/').map(encodeURIComponent).join('/')}`, Uint8Array.from(bytes)),
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

async function ring(...args: string[]): Promise<void> {
  // 1 stands for a warning, which so small a ring gets.
  const { code, stderr, stdout } = await run('swift-ring-builder', args, { timeoutMs: 60_000 })
  assert.ok(code === 0 || code === 1, `${stdout}${stderr}`)
}
