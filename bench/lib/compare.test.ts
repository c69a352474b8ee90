import assert from 'node:assert/strict'
import { test } from 'node:test'
import { judge, type Measured, type RowResult } from './compare.ts'

const measured = (cpu: number[], bytes: number): Measured => ({
  ...{
    cpu,
    laterCpu: [],
    systemCpu: [],
    perSecond: [],
    pss: [],
    processes: [],
    literalBytes: 0,
    place: 'memory',
  },
  linkBytes: { toServer: bytes / 4, toDevice: (bytes * 3) / 4 },
})

const result = (ours: Measured, required: { cpu?: number; bytes?: number }): RowResult => ({
  row: { id: 'r', title: 'r', method: 'update', options: [], clients: [1], ...required },
  clients: 1,
  servers: { rsyncd: measured([0.8, 1, 4], 1000), upserv: ours },
})

const CASES = [
  { name: 'met to the brim', ours: measured([0.25], 880), cpu: 1 / 4, bytes: 0.88, met: [true, true] },
  { name: 'missed', ours: measured([0.26], 881), cpu: 1 / 4, bytes: 0.88, met: [false, false] },
  { name: 'the median counts', ours: measured([9, 0.1, 0.1], 10), cpu: 1 / 4, met: [true, undefined] },
  { name: 'nothing required', ours: measured([50], 5000), met: [undefined, undefined] },
]
for (const { name, ours, met, ...required } of CASES) {
  test(`judging: ${name}`, () => {
    const { cpuIsMet, bytesAreMet } = judge(result(ours, required))
    assert.deepEqual([cpuIsMet, bytesAreMet], met)
  })
}
