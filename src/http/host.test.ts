import assert from 'node:assert/strict'
import { hostname } from 'node:os'
import { test } from 'node:test'
import { checkHost } from './host.ts'

function admits(host: string | undefined, local: string, names: string[] = []): boolean {
  try {
    checkHost(host, local, names)
    return true
  } catch {
    return false
  }
}

test('on a loopback address a server has no name that somebody else chose', () => {
  for (const local of ['127.0.0.1', '::ffff:127.0.0.1', '127.0.1.1', '::1']) {
    for (const host of [
      '127.0.0.1:8730',
      '[::1]:8730',
      '192.0.2.1',
      'localhost',
      'LOCALHOST:8730',
      hostname(),
    ])
      assert.ok(admits(host, local), `${host} at ${local}`)
    for (const host of [
      'evil.example',
      'evil.example:8730',
      '127.0.0.1.evil.example',
      'localhost.evil.example',
      '',
    ])
      assert.ok(!admits(host, local), `${host} at ${local}`)
  }
  assert.ok(admits(undefined, '127.0.0.1'))
})

test('elsewhere any name will do, unless names are given', () => {
  assert.ok(admits('schoolserver:8730', '192.0.2.1'))
  assert.ok(!admits('schoolserver:8730', '192.0.2.1', ['updates.example.org']))
  for (const local of ['192.0.2.1', '127.0.0.1'])
    for (const host of ['Updates.example.org.:443', '192.0.2.1'])
      assert.ok(admits(host, local, ['updates.example.org']))
})
