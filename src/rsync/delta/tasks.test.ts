import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { StoreCorrupt } from '../../errors.ts'
import { fileDigest } from '../digests.ts'
import { runTask, type Task } from './tasks.ts'

const CONTENT = Buffer.from('what was there before, and the tail')
const FROM = 23
const expected = fileDigest('xxh128', 0, [CONTENT])
const digest = (from: number): Task => ({ type: 'digest', name: 'md5', seed: 0, from, expected })

describe('a digest', () => {
  for (const from of [0, FROM, CONTENT.length]) {
    test(`of what begins at ${from}`, async () => {
      assert.deepEqual(await runTask(digest(from), CONTENT), fileDigest('md5', 0, [CONTENT.subarray(from)]))
    })
  }

  for (const at of [0, FROM, CONTENT.length - 1]) {
    test(`of a tail is not given when byte ${at} of the whole has rotted`, async () => {
      const rotten = Buffer.from(CONTENT)
      rotten[at]! ^= 1
      await assert.rejects(runTask(digest(FROM), rotten), StoreCorrupt)
    })
  }
})
