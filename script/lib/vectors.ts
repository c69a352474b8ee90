/**
 * Records conversations between the real client and our session into test/vectors: the client's bytes as
 * it sent them, the server's as a replay of those gives them. Each recorded run must have worked.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PROTOCOLS, RSYNC, rsync } from '../../test/support/rsync.ts'
import { makeScratch } from '../../test/support/scratch.ts'
import { listen, sessionContext } from '../../test/support/session.ts'
import { replay, VECTOR_CASES, VECTORS, vectorTrees } from '../../test/support/vectors.ts'

if (process.getuid?.() !== 0) {
  console.error('Run this as root: the client makes a device node and sets owners.')
  process.exit(77)
}

using scratch = makeScratch('vectors')
const trees = vectorTrees()
await using port = await listen(sessionContext(trees))
const url = `rsync://127.0.0.1:${port.port}`

async function run(args: readonly string[], protocol: number, input = ''): Promise<string> {
  const { code, command, stdout, stderr } = await rsync(args, { protocol, input })
  if (code !== 0 || stderr !== '') throw new Error(`${command}\nended with ${code}\n${stdout}${stderr}`)
  return stdout
}

/** Cases to record; none means all. */
const wanted = process.argv.slice(2)
let runs = 0
for (const protocol of PROTOCOLS) {
  mkdirSync(join(VECTORS, String(protocol)), { recursive: true })
  for (const { name, options, device, since = 0, input } of VECTOR_CASES) {
    if (protocol < since || (wanted.length > 0 && !wanted.includes(name))) continue
    const target = join(scratch.path, String(++runs))
    mkdirSync(target)
    if (device === 'old' || device === 'new') await run(['-aH', `${url}/${device}/`, target], protocol)
    const first = port.received.length
    await run([...options, `${url}/new/`, ...(device ? [target] : [])], protocol, input)
    const client = port.received[first]!
    if (options.includes('-aH') || options.includes('-aHAX')) {
      // Another run finds nothing to do; below 31 times have no fractions.
      const left = await run(['-aHnic', '--modify-window=1', `${url}/new/`, target], protocol)
      const changes = left.split('\n').filter((line) => /^[<>c*]/.test(line))
      if (changes.length > 0)
        throw new Error(`${name} at ${protocol} left differences:\n${changes.join('\n')}`)
    }
    const server = await replay(trees, client)
    writeFileSync(join(VECTORS, String(protocol), `${name}.client`), client)
    writeFileSync(join(VECTORS, String(protocol), `${name}.server`), server)
    console.log(`${protocol}/${name}: ${client.length} bytes in, ${server.length} bytes out`)
  }
}
const version = execFileSync(RSYNC, ['--version'], { encoding: 'utf8' }).split('\n')[0]
console.log(`Recorded with ${version}, node ${process.versions.node} and zlib ${process.versions.zlib}.`)
process.exit(0)
