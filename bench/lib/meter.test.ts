import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ServerProcess } from '../../test/support/processes.ts'
import { Meter, parseCpuStat, parseProcStat, parseSmapsRollup } from './meter.ts'

test('cpu.stat of a control group', () => {
  const text = 'usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnice_usec 0\n'
  assert.deepEqual(parseCpuStat(text), { total: 2.5, user: 2, system: 0.5 })
  assert.throws(() => parseCpuStat('nr_periods 0\n'), /no usage_usec/)
})

test('/proc/PID/stat counts children that were waited for, whatever the name of the process', () => {
  const text = '77 (a) b (c) S 1 77 77 0 -1 4194560 1 2 3 4 100 20 3000 400 20 0 1 0 5 6 7'
  assert.deepEqual(parseProcStat(text), { total: 35.2, user: 31, system: 4.2 })
})

test('smaps_rollup; of a process that has ended, nothing', () => {
  const text =
    'aaaa-ffff ---p 00000000 00:00 0 [rollup]\nRss:    2048 kB\nPss:    1024 kB\nPss_Anon:  512 kB\n'
  assert.deepEqual(parseSmapsRollup(text), { pss: 1 << 20, rss: 2 << 20 })
  assert.deepEqual(parseSmapsRollup(''), { pss: 0, rss: 0 })
})

test('a meter counts children that have ended, and the memory of those that run', async () => {
  // The shell starts a child for each number that arrives, which burns CPU and ends.
  const script =
    'trap "sh -c \'i=0; while [ \\$i -lt 200000 ]; do i=\\$((i+1)); done\'" USR1; echo up; while :; do sleep 100 & wait $!; done'
  const server = new ServerProcess('sh', ['-c', script])
  await server.waitForOutput('stdout', /up/)
  try {
    await using meter = new Meter(server.child.pid!)
    const stop = meter.watch(20)
    const { cpu } = await meter.during(async () => {
      server.child.kill('SIGUSR1')
      while (meter.cpu().total < 0.05) await new Promise((done) => setTimeout(done, 20))
    })
    assert.ok(cpu.total > 0.05, `${cpu.total} s`)
    const peak = await stop()
    assert.ok(peak.pss > 50_000, `${peak.pss} bytes`)
    assert.ok(peak.processes >= 2)
  } finally {
    await server.stop('SIGKILL')
  }
})
