/**
 * Which keys of a source mean something for which kind. One that would be passed over is refused: whoever has
 * written `signature_required` relies on it. (Nobody relies on `stall` where nothing comes over the network.)
 */
import { ConfigError } from '../errors.ts'
import type { SourceConfig } from './source.ts'
import { schemeOf } from './url.ts'

/** What a source has that not every kind takes, by its name in the configuration. */
const KEYS = {
  mirrors: ({ mirrors }) => (mirrors?.length ? mirrors : undefined),
  checksum: ({ checksum }) => checksum,
  checksum_required: ({ checksumRequired }) => checksumRequired,
  signature: ({ signature }) => signature,
  signature_required: ({ signatureRequired }) => signatureRequired,
  keys: ({ keys }) => keys,
  contents: ({ contents }) => contents,
  list: ({ list }) => list,
  names: ({ names }) => names,
  id: ({ id }) => id,
  maps: ({ maps }) => maps,
  pristine: ({ tree }) => tree?.pristine || undefined,
  subtree: ({ tree }) => tree?.subtree,
  exclude: ({ tree }) => tree?.exclude,
  users: ({ tree }) => tree?.users,
  groups: ({ tree }) => tree?.groups,
  mtimes: ({ tree }) => tree?.contentMtimes || undefined,
  extract: ({ extract }) => extract,
  extract_timeout: ({ extractTimeoutMs }) => extractTimeoutMs,
  token_file: ({ http }) => http?.tokenFile,
  client_cert: ({ http }) => http?.clientCert,
  client_key: ({ http }) => http?.clientKey,
  ca: ({ http }) => http?.ca,
  platform: ({ platform }) => platform,
  endpoint: ({ s3 }) => s3?.endpoint,
  region: ({ s3 }) => s3?.region,
  credentials_file: ({ s3 }) => s3?.credentialsFile,
} satisfies Record<string, (config: SourceConfig) => unknown>

type Key = keyof typeof KEYS

interface Kind {
  /** For messages: what such a source is. */
  what: string
  /** What it has no use for, and what to do then. */
  refuses: readonly { keys: readonly Key[]; hint: string }[]
}

const BUCKET: Kind['refuses'][number] = {
  keys: ['endpoint', 'region', 'credentials_file'],
  hint: 'It is for buckets: s3://BUCKET/KEY. Remove it.',
}
const PLATFORM: Kind['refuses'][number] = {
  keys: ['platform'],
  hint: 'It is for images of registries: oci://HOST/NAME:{build}. Remove it.',
}

const FILE: Kind = {
  what: 'a directory of this machine',
  refuses: [
    BUCKET,
    PLATFORM,
    {
      keys: ['token_file', 'client_cert', 'client_key', 'ca'],
      hint: 'It is for what comes over the network. Remove it.',
    },
  ],
}
const HTTP: Kind = { what: 'a source over HTTP', refuses: [BUCKET, PLATFORM] }
const IMAGE: Kind = {
  what: 'an image of a registry',
  refuses: [
    BUCKET,
    {
      keys: ['checksum', 'checksum_required'],
      hint: 'Its manifest and layers are always checked by their digests. Remove the key.',
    },
    {
      keys: ['signature', 'signature_required', 'keys'],
      hint: 'Signatures of images are not looked at. Remove the key, or publish a signed archive over HTTP.',
    },
    { keys: ['mirrors'], hint: 'Write a [[source]] for each registry: the next is tried when one fails.' },
    { keys: ['contents'], hint: 'Its contents file is generated. Remove the key.' },
    { keys: ['list'], hint: 'Its tags are listed in any case. Remove the key.' },
    {
      keys: ['extract', 'extract_timeout'],
      hint: 'Its layers are read as the tar that they are. Remove the key.',
    },
  ],
}
const PARENT: Kind = {
  what: 'a parent server',
  refuses: [
    BUCKET,
    PLATFORM,
    {
      keys: ['checksum', 'checksum_required', 'contents', 'list', 'names', 'id', 'maps'],
      hint: 'Its blobs are checked by their digests, and it says itself which builds it has. Remove the key.',
    },
    {
      keys: ['signature', 'signature_required', 'keys'],
      hint: "It passes on what it has checked itself: write the key in that server's configuration.",
    },
    { keys: ['mirrors'], hint: 'Write a [[source]] for each server: the next is tried when one fails.' },
    {
      keys: ['pristine', 'subtree', 'exclude', 'users', 'groups', 'mtimes', 'extract', 'extract_timeout'],
      hint: "It hands out builds as it has them: write the key in that server's configuration.",
    },
  ],
}

const KINDS: Readonly<Record<string, Kind>> = {
  http: HTTP,
  https: HTTP,
  s3: { what: 'a bucket', refuses: [PLATFORM] },
  file: FILE,
  oci: IMAGE,
  'oci+http': IMAGE,
  upserv: PARENT,
  upservs: PARENT,
}

/** @throws ConfigError for a key that this kind of source would pass over. */
export function checkKeys(config: SourceConfig): void {
  const kind = KINDS[schemeOf(config.url)]
  for (const { keys, hint } of kind?.refuses ?? []) {
    const key = keys.find((one) => KEYS[one](config) !== undefined)
    if (key === undefined) continue
    const shown = key === 'mirrors' ? 'several URLs (mirrors)' : `the key ${key}`
    throw new ConfigError(`source "${config.name}": ${kind!.what} has no use for ${shown}`, { hint })
  }
}

/** Whether a key means something for the kind of source that a URL is of. */
export function takesKey(url: string, key: Key): boolean {
  return !KINDS[schemeOf(url)]?.refuses.some(({ keys }) => keys.includes(key))
}
