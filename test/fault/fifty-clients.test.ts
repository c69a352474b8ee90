/** A whole school asks at once for a build that nobody has: one download, fifty right trees, nobody in the dark. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { percentOf, type TimedLine } from '../support/client.ts'
import { Mirror, randomTree } from '../support/mirror.ts'

const CLIENTS = 50
/** About 6 MB at 1 MB a second: the fetch takes long enough that several lines are due. */
const TREE = randomTree(1, 60, 100_000)
const RATE = '1m'

const isProgress = (line: TimedLine): boolean => percentOf(line) !== undefined

test('fifty clients ask at once for an absent build', { timeout: 180_000 }, async () => {
  await using mirror = new Mirror()
  await mirror.publish('1', TREE, { sha256: true })
  await mirror.startNginx(RATE)
  const upserv = await mirror.startUpserv()

  const clients = Array.from({ length: CLIENTS }, () => mirror.client(upserv, '1'))
  for (const { client } of clients) await client.ends(0)

  const most = Math.max(...clients.map(({ client }) => client.lines.filter(isProgress).length))
  for (const { client, place } of clients) {
    mirror.assertTree('1', place)
    assert.equal(client.stderr, '', client.output)
    const percents = client.lines.map(percentOf).filter((percent) => percent !== undefined)
    assert.ok(percents.length >= 2, `told no progress:\n${client.output}`)
    assert.ok(
      percents.every((percent, i) => percent <= 100 && percent >= (percents[i - 1] ?? 0)),
      `progress goes back:\n${client.output}`,
    )
    // As often as to anybody else, but for the line that was due when it came or when it was over.
    assert.ok(percents.length >= most - 2, `told less than another one, ${most} times:\n${client.output}`)
  }
  assert.deepEqual(
    mirror.nginx
      .requests()
      .map(({ method, path, status }) => `${method} ${path} ${status}`)
      .sort(),
    ['GET /1 200', 'GET /1.sha256 200'],
  )
  await upserv.stop()
  assert.doesNotMatch(upserv.process.stderr, /"level":(?:50|60)|MaxListenersExceeded/)
})
