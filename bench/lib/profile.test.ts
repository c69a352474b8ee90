import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type CpuProfile, selfTimes } from './profile.ts'

const frame = (functionName: string, url = '', lineNumber = 0) => ({ functionName, url, lineNumber })

const PROFILE: CpuProfile = {
  nodes: [
    { id: 1, callFrame: frame('(idle)') },
    { id: 2, callFrame: frame('match', 'file:///some/where/src/rsync/delta/match.ts', 41) },
    { id: 3, callFrame: frame('(garbage collector)') },
    { id: 4, callFrame: frame('', 'node:internal/streams', 6) },
    { id: 5, callFrame: frame('writev') },
  ],
  startTime: 1_000_000,
  samples: [2, 1, 2, 3, 4, 5],
  //        1.0  1.5  2.5  2.75 3.0  3.5 s
  timeDeltas: [0, 500_000, 1_000_000, 250_000, 250_000, 500_000],
}

test('self times: a sample lasts until the next, who is idle is left out, threads add up', () => {
  assert.deepEqual(selfTimes([PROFILE, PROFILE], 0, 1e9), [
    { where: 'match (src/rsync/delta/match.ts:42)', seconds: 1.5 },
    { where: '(anonymous) (node:internal/streams:7)', seconds: 1 },
    { where: '(garbage collector)', seconds: 0.5 },
    { where: '(native) writev', seconds: 0 },
  ])
})

test('self times: only what lies between the two moments', () => {
  assert.deepEqual(selfTimes([PROFILE], 2_600_000, 2_900_000), [
    { where: '(garbage collector)', seconds: 0.25 },
  ])
})
