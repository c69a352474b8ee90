/** What the two processes of a handover do when the other one ends at a bad moment. test/handover has the good ones. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { run } from '../../test/support/processes.ts'
import { makeScratch } from '../../test/support/scratch.ts'

const MODULE = join(import.meta.dirname, 'handover.ts')

test('a predecessor that is killed in the middle of a line has ended, and that is all', async () => {
  using scratch = makeScratch('handover')
  const script = join(scratch.path, 'new.ts')
  writeFileSync(
    script,
    `import { Predecessor } from '${MODULE}'
const predecessor = Predecessor.take(process.env)
await predecessor.ready('1')
console.log('yours')
await predecessor.gone
console.log('gone')
`,
  )
  const handed = JSON.stringify({ sockets: [], lock: 0, channel: 3 })
  const child = spawn(process.execPath, [script], {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    env: { ...process.env, UPSERV_HANDOVER: handed },
  })
  let said = ''
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const channel = child.stdio[3] as Socket
  const exit = once(child, 'exit')
  await once(channel, 'data')
  channel.write('{"type":"yours","firstSession":1,"held":[],"fetching":[]}\n')
  while (!said.includes('yours')) await once(child.stdout!, 'data')
  channel.end('{"type":"live","sessions":[{"id":')
  const [code] = (await exit) as [number | null]
  assert.deepEqual([code, said], [0, 'yours\ngone\n'])
})

test('a successor that ended by itself is not in the way of going on', async () => {
  using scratch = makeScratch('handover')
  // It starts itself again, as the server does.
  const script = join(scratch.path, 'both.ts')
  writeFileSync(
    script,
    `import { spawnSync } from 'node:child_process'
import { writeSync } from 'node:fs'
import { Successor } from '${MODULE}'
const handed = process.env.UPSERV_HANDOVER
if (handed) {
  const { channel } = JSON.parse(handed)
  const say = (message) => writeSync(channel, JSON.stringify(message) + '\\n')
  // Of a process that has ended by the time that it is to be killed.
  const { pid } = spawnSync('true')
  say({ type: 'ready', pid, version: '1' })
  say({ type: 'failed', reason: 'no reason' })
  setTimeout(() => {}, 200)
} else {
  const next = await Successor.start({ sockets: [], lock: 2, environment: process.env, onStop: () => {} })
  await next.takeOver({ firstSession: 1, held: [], fetching: [], pid: 1, version: '1' }).catch((error) => console.log(error.message))
  await next.end()
  console.log('goes on')
}
`,
  )
  const { code, stdout, stderr } = await run(process.execPath, [script])
  assert.deepEqual([code, stdout], [0, 'the new process could not take over: no reason\ngoes on\n'], stderr)
})

test('what the process before has to say is heard in order, also what comes before anybody listens', async () => {
  using scratch = makeScratch('handover')
  const script = join(scratch.path, 'both.ts')
  writeFileSync(
    script,
    `import { setTimeout as sleep } from 'node:timers/promises'
import { Predecessor, Successor } from '${MODULE}'
const predecessor = Predecessor.take(process.env)
if (predecessor) {
  await predecessor.ready('1')
  predecessor.serving()
  await sleep(300)
  const said = []
  predecessor.listen((id) => said.push(['freed', id]), {
    session: ({ id }) => said.push(['session', id]),
    fetch: ({ id }) => said.push(['fetch', id]),
    change: ({ what }) => said.push(['change', what]),
  })
  await predecessor.gone
  console.log(JSON.stringify(said))
} else {
  const next = await Successor.start({ sockets: [], lock: 2, environment: process.env, onStop: () => {} })
  await next.takeOver({ firstSession: 1, held: [], fetching: [], pid: 1, version: '1' })
  const tellAll = (n) => {
    next.freed(n)
    next.session({ id: n })
    next.fetch({ id: n })
    next.change({ what: n })
  }
  tellAll(1)
  await sleep(600)
  tellAll(2)
  await sleep(100)
  next.close()
}
`,
  )
  const { stdout, stderr } = await run(process.execPath, [script])
  const told = (n: number) => ['freed', 'session', 'fetch', 'change'].map((what) => [what, n])
  assert.deepEqual(JSON.parse(stdout), [...told(1), ...told(2)], stderr)
})
