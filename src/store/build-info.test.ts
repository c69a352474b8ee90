import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkedBy } from './build-info.ts'

const FINGERPRINT = '89ABCDEF01234567'.padStart(40, '0')
const CASES: { vouchers: string[]; shown: string }[] = [
  { vouchers: [], shown: '' },
  { vouchers: ['sha256 in http://h/1.sha256'], shown: 'sha256' },
  { vouchers: ['oci digest sha256:00'], shown: 'oci' },
  {
    vouchers: [
      `sha256 in http://h/SUMS, signed by gpg key ${FINGERPRINT} (us <us@h>)`,
      'minisign key 0123456789ABCDEF (x)',
    ],
    shown: 'sha256, gpg key 89ABCDEF01234567, minisign key 0123456789ABCDEF',
  },
  {
    vouchers: [`gpg key ${FINGERPRINT} (us <us@h>) (says the export)`],
    shown: 'gpg key 89ABCDEF01234567 (says the export)',
  },
  {
    vouchers: [
      `sha256 in http://h/S, signed by gpg key ${FINGERPRINT} (us) (says city) (says region (north))`,
    ],
    shown:
      'sha256 (says city) (says region (north)), gpg key 89ABCDEF01234567 (says city) (says region (north))',
  },
  // What anybody may have written into an export.
  { vouchers: [' (says the export)'], shown: '' },
  { vouchers: [`${'x'.repeat(900)} (says the export)`], shown: `${'x'.repeat(100)} (says the export)` },
]
for (const { vouchers, shown } of CASES)
  test(`checkedBy: ${shown.slice(0, 60) || 'nothing'} (${vouchers.length})`, () => {
    assert.equal(checkedBy({ vouchers }), shown)
  })
