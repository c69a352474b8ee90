/**
 * Source over oci: and oci+http:, a registry of container images: the layers of one image, each a tar, in
 * the order in which they lie on each other. Who reads them flattens them (build/layers.ts).
 *
 * Names are those that people use: `docker.io/debian` is `library/debian` of registry-1.docker.io. What comes
 * is named by digests from the manifest on, and everything is checked against them; where the reference is a
 * tag, the registry says which digest that is. Tokens are asked for as the registry says (RFC 6750 with the
 * extensions of Docker's), and again before they expire.
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { DigestMismatch, NotPublished, SourceError, UpstreamRefused } from '../errors.ts'
import { showBytes, utf8Bytes } from '../lib/bytes.ts'
import { Pacer } from '../lib/pacer.ts'
import { formatSize } from '../lib/units.ts'
import { type Clock, SYSTEM_CLOCK } from './clock.ts'
import { type Answer, type Authorize, HttpClient, isMissing, readWhole } from './http-client.ts'
import { HttpDownload } from './http-download.ts'
import { header } from './http-headers.ts'
import { limitsFor, type SourceLimits } from './limits.ts'
import { Pace } from './pace.ts'
import { Retries } from './retry.ts'
import { Rule } from './rule.ts'
import type {
  Download,
  Layer,
  LocateOptions,
  Source,
  SourceConfig,
  SourceDeps,
  SourceListing,
} from './source.ts'
import { decodePart } from './url.ts'
import { listingOf } from './walk.ts'

const MANIFEST_TYPES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
]
/** Registries take no larger ones. */
const MAX_MANIFEST_BYTES = 4 << 20
/** Docker Hub's have a hundred tags, a list that goes on for ever has none. */
const MAX_TAG_PAGES = 1000
/** overlayfs takes 500 layers, Docker makes 127. */
const MAX_LAYERS = 500
/** Of the platforms that there are, in the message that the one which is wanted is not among them. */
const MAX_NAMES = 500
const MAX_TOKEN_BYTES = 64 << 10
/** A token is good for a minute where nobody says; a new one is asked for a little before. */
const TOKEN_S = 60
const TOKEN_MARGIN_MS = 10_000
const DIGEST = /^sha(256|512):[0-9a-f]{64,128}$/

const descriptor = z.object({
  mediaType: z.string().optional(),
  digest: z.string().regex(DIGEST),
  size: z.int().nonnegative(),
  urls: z.array(z.string()).optional(),
  platform: z.object({ os: z.string(), architecture: z.string(), variant: z.string().optional() }).optional(),
})
const manifestSchema = z.union([
  z.object({ manifests: z.array(descriptor).max(1000) }),
  z.object({ layers: z.array(descriptor).min(1).max(MAX_LAYERS) }),
])
const tagsSchema = z.object({ tags: z.array(z.string()).max(1_000_000).nullable() })
const tokenSchema = z.object({
  token: z.string().optional(),
  access_token: z.string().optional(),
  expires_in: z.number().positive().optional(),
})

/** Where an image is, as its registry wants it. */
interface Reference {
  origin: string
  repository: string
  /** A tag or a digest. */
  reference: string
}

export class OciSource implements Source {
  readonly kind = 'archive'
  readonly name: string
  readonly #rule: Rule
  readonly #platform: string
  readonly #limits: SourceLimits
  readonly #clock: Clock
  readonly #client: HttpClient
  readonly #tokenClient: HttpClient
  readonly #pace: Pace | undefined
  readonly #base: URL
  readonly #usesToken: boolean
  /** By origin and repository. */
  readonly #tokens = new Map<string, { authorization: string; until: number }>()

  constructor(config: SourceConfig, deps: SourceDeps) {
    this.name = config.name
    this.#rule = new Rule(config, ['oci', 'oci+http'])
    this.#platform = config.platform ?? `linux/${ARCHITECTURES[process.arch] ?? process.arch}`
    this.#limits = limitsFor(config, deps.limits)
    this.#clock = { ...SYSTEM_CLOCK, ...deps.clock }
    this.#usesToken = config.http?.tokenFile !== undefined
    const authorize: Authorize = async (url, _, signal): Promise<Record<string, string>> => {
      const key = repositoryKey(url)
      // A layer may take longer than its token is good for, and its download break off behind that.
      if (this.#tokens.has(key)) await this.#authorize(url, { signal, onEvent: () => {} })
      const token = this.#tokens.get(key)
      return token ? { authorization: token.authorization } : {}
    }
    this.#client = new HttpClient(
      this.#limits,
      this.#clock,
      config.http,
      this.#usesToken ? undefined : authorize,
      deps.rests,
    )
    // Who hands out tokens is another server: it gets neither our token nor our certificate.
    this.#tokenClient = new HttpClient(this.#limits, this.#clock, { ca: config.http?.ca })
    this.#pace = config.rates?.length
      ? new Pace(config.rates, deps.pace ?? Pace.memory(), this.#clock)
      : undefined
    this.#base = new URL(config.url.replaceAll(/\{[^{}]*\}|\*/g, 'x'))
  }

  offers(id: string): boolean {
    return this.#rule.offers(id)
  }

  async locate(id: string, options: LocateOptions): Promise<Download> {
    const url = this.#rule.urlsFor(id).archive
    const image = referenceOf(url)
    const shown = `${image.origin.replace(/^https?:\/\//, '')}/${image.repository}${image.reference.includes(':') ? '@' : ':'}${image.reference}`
    const { layers, digest } = await this.#manifest(id, url, image, shown, options)
    const open = (number: number): Layer => {
      const { digest: expected, size, urls } = layers[number]!
      if (urls?.length) throw new SourceError(`${shown} has a layer that its registry may not hand out`)
      return {
        size,
        digest: expected,
        url: `${shown} (${expected})`,
        bytes: () => this.#layer(url, image, expected, size, number, options),
      }
    }
    return {
      url: shown,
      size: layers.reduce((sum, { size }) => sum + size, 0),
      checksum: undefined,
      checksumSigner: undefined,
      signature: undefined,
      vouchers: [`oci digest ${digest}`],
      layers: layers.map((_, number) => open(number)),
      contents: async () => undefined,
      bytes: () => {
        throw new Error('an image is read by its layers')
      },
      [Symbol.asyncDispose]: async () => {},
    }
  }

  /** The tags that are ids, or hold one as `source.names` says. */
  async list(signal: AbortSignal): Promise<SourceListing> {
    const image = referenceOf(this.#base)
    const options = { signal, onEvent: () => {} }
    const tags: string[] = []
    let next: string | undefined = 'tags/list?n=10000'
    for (
      let page = 0;
      next !== undefined && page < MAX_TAG_PAGES && tags.length <= this.#limits.listNames;
      page++
    ) {
      const url = this.#at(this.#base, image, next)
      const { bytes, headers } = await this.#get(url, MAX_MANIFEST_BYTES * 2, options)
      const parsed = tagsSchema.safeParse(parseJson(bytes))
      if (!parsed.success) throw new SourceError(`${image.origin} answers with a list of tags that is none`)
      for (const tag of parsed.data.tags ?? []) tags.push(tag)
      next = nextPage(header(headers, 'link'), url)
    }
    const names = tags.map((name) => ({ name, changed: undefined }))
    const listing = await listingOf(this.#rule, names, this.#limits, new Pacer(signal))
    return { ...listing, complete: listing.complete && next === undefined }
  }

  /** The image's layers: of an index, those of the manifest for our platform. */
  async #manifest(id: string, url: URL, image: Reference, shown: string, options: LocateOptions) {
    let reference = image.reference
    for (let depth = 0; depth < 3; depth++) {
      let bytes: Buffer
      try {
        const answer = await this.#get(
          this.#at(url, image, `manifests/${reference}`),
          MAX_MANIFEST_BYTES,
          options,
        )
        bytes = answer.bytes
      } catch (error) {
        if (!isMissing(error)) throw error
        throw new NotPublished(`build-${id} is not published by ${this.name} (${shown})`, { cause: error })
      }
      const digest = reference.includes(':') ? reference : `sha256:${sha('256', bytes)}`
      const [, algorithm = ''] = DIGEST.exec(digest) ?? []
      const actual = `sha${algorithm}:${sha(algorithm, bytes)}`
      if (actual !== digest) throw new DigestMismatch(shown, 'digest', digest, actual)
      const parsed = manifestSchema.safeParse(parseJson(bytes))
      if (!parsed.success) throw new SourceError(`${shown} is no image whose layers could be read`)
      if ('layers' in parsed.data) return { layers: parsed.data.layers, digest }
      reference = this.#choose(parsed.data.manifests, shown)
    }
    throw new SourceError(`${shown} is an index of indexes`)
  }

  #choose(manifests: readonly z.infer<typeof descriptor>[], shown: string): string {
    const nameOf = ({ platform }: (typeof manifests)[number]): string =>
      platform ? [platform.os, platform.architecture, platform.variant].filter(Boolean).join('/') : ''
    const wanted = this.#platform
    const found = manifests.find((one) => nameOf(one) === wanted || nameOf(one).startsWith(`${wanted}/`))
    if (found) return found.digest
    const names = manifests.map(nameOf).filter((name) => name !== '' && !name.startsWith('unknown'))
    const others = showBytes(utf8Bytes(names.join(', ')), MAX_NAMES)
    throw new SourceError(`${shown} has no image for ${wanted}, but for ${others}`, {
      hint: "The source's platform says which is wanted.",
    })
  }

  async *#layer(
    url: URL,
    image: Reference,
    digest: string,
    size: number,
    number: number,
    { signal, spoolOf, onEvent }: LocateOptions,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const at = this.#at(url, image, `blobs/${digest}`)
    await this.#authorize(at, { signal, onEvent })
    const download = await HttpDownload.open({
      ...{
        client: this.#client,
        url: at,
        mirrors: [],
        pace: this.#pace,
        limits: this.#limits,
        clock: this.#clock,
      },
      ...{ signal, spool: spoolOf?.(`layer-${number}`), onEvent },
    })
    await using layer = download
    if (layer.size !== undefined && layer.size !== size) {
      throw new SourceError(`the layer ${digest} has ${layer.size} bytes in place of ${size}`)
    }
    // What a registry that names no length sends does not end by itself.
    let bytes = 0
    for await (const chunk of layer.bytes()) {
      bytes += chunk.length
      if (bytes > size) throw new SourceError(`the layer ${digest} sends more than the ${size} bytes of it`)
      yield chunk
    }
  }

  /** Something small from the registry, with a token where it wants one. */
  async #get(
    url: URL,
    limit: number,
    { signal, onEvent }: LocateOptions,
  ): Promise<{ bytes: Buffer; headers: Answer['headers'] }> {
    const [limits, clock] = [this.#limits, this.#clock]
    const retries = new Retries({
      what: url.host,
      attempts: limits.attemptsToStart,
      limits,
      clock,
      signal,
      onEvent,
    })
    await this.#authorize(url, { signal, onEvent })
    return await retries.run(async () => {
      const answer = await this.#client.ask(url, { headers: { accept: MANIFEST_TYPES.join(', ') } }, signal)
      const tooLarge = (): Error => new SourceError(`${url.host} answers with more than ${formatSize(limit)}`)
      return { bytes: await readWhole(answer, limit, tooLarge), headers: answer.headers }
    })
  }

  /** Gets a token for the repository if the registry wants one, and there is none that is good for a while. */
  async #authorize(url: URL, { signal, onEvent }: LocateOptions): Promise<void> {
    const key = repositoryKey(url)
    const known = this.#tokens.get(key)
    if (this.#usesToken || (known && known.until - TOKEN_MARGIN_MS > this.#clock.now())) return
    const [limits, clock] = [this.#limits, this.#clock]
    const retries = new Retries({
      what: url.host,
      attempts: limits.attemptsToStart,
      limits,
      clock,
      signal,
      onEvent,
    })
    const challenge = await retries.run(() => this.#challenge(url, signal))
    if (!challenge) {
      this.#tokens.delete(key)
      return
    }
    const realm = new URL(challenge.realm)
    // The password is for whom the registry names: it is the one that was configured who says so.
    realm.username = url.username
    realm.password = url.password
    if (challenge.service) realm.searchParams.set('service', challenge.service)
    const [, repository = ''] = key.split(' ')
    realm.searchParams.set('scope', challenge.scope ?? `repository:${repository}:pull`)
    const body = await retries.run(async () => {
      const answer = await this.#tokenClient.ask(realm, {}, signal)
      return await readWhole(
        answer,
        MAX_TOKEN_BYTES,
        () => new SourceError(`${realm.host} answers with a token that is none`),
      )
    })
    const parsed = tokenSchema.safeParse(parseJson(body))
    const token = parsed.data?.token ?? parsed.data?.access_token
    if (token === undefined) throw new SourceError(`${realm.host} answers with a token that is none`)
    const until = this.#clock.now() + (parsed.data?.expires_in ?? TOKEN_S) * 1000
    this.#tokens.set(key, { authorization: `Bearer ${token}`, until })
  }

  /** What a registry asks for, when it asks for a token. */
  async #challenge(
    url: URL,
    signal: AbortSignal,
  ): Promise<{ realm: string; service?: string; scope?: string } | undefined> {
    const ping = new URL('/v2/', url)
    ping.username = url.username
    ping.password = url.password
    try {
      const answer = await this.#client.ask(ping, {}, signal)
      answer.discard()
      return undefined
    } catch (error) {
      if (!(error instanceof UpstreamRefused) || error.status !== 401) throw error
      const asked = error.challenge ?? ''
      const parameter = (name: string): string | undefined =>
        new RegExp(`\\b${name}="([^"]*)"`, 'i').exec(asked)?.[1]
      const realm = parameter('realm')
      if (!/^bearer /i.test(asked) || realm === undefined || !/^https?:\/\//.test(realm)) {
        throw new UpstreamRefused(`${url.host} answers 401: access denied`, 401, {
          hint: "Put user:password@ before the host in the source's url.",
          cause: error,
        })
      }
      if (url.protocol === 'https:' && !realm.startsWith('https:')) {
        throw new UpstreamRefused(`${url.host} wants a token to be asked for without TLS`, 401)
      }
      const [service, scope] = [parameter('service'), parameter('scope')]
      return {
        realm,
        ...(service === undefined ? {} : { service }),
        ...(scope === undefined ? {} : { scope }),
      }
    }
  }

  #at(url: URL, { origin, repository }: Reference, path: string): URL {
    const at = new URL(`/v2/${repository}/${path}`, origin)
    at.username = url.username
    at.password = url.password
    return at
  }
}

/** Node's names of architectures, and Go's, which images have. */
const ARCHITECTURES: Partial<Record<string, string>> = {
  x64: 'amd64',
  arm64: 'arm64',
  arm: 'arm',
  ia32: '386',
}

function referenceOf(url: URL): Reference {
  const scheme = url.protocol === 'oci+http:' ? 'http' : 'https'
  const isDockerHub = /^(?:index\.)?docker\.io$/.test(url.host)
  const [, name = '', digest, tag] =
    /^\/([^@:]+)(?:@([^@]+)|:([^@:/]+))?$/.exec(decodePart(url.pathname)) ?? []
  const reference = digest ?? tag ?? 'latest'
  if (
    !/^[a-z0-9._/-]+$/.test(name) ||
    !(digest === undefined ? /^\w[\w.-]{0,127}$/ : DIGEST).test(reference)
  ) {
    throw new SourceError(`${url.host}${url.pathname} is no name of an image`, {
      hint: 'As in oci://docker.io/debian:{build}, or oci://registry.example.org/os@sha256:...',
    })
  }
  return {
    origin: `${scheme}://${isDockerHub ? 'registry-1.docker.io' : url.host}`,
    repository: isDockerHub && !name.includes('/') ? `library/${name}` : name,
    reference,
  }
}

/** What is to be asked for after this page of tags, within the registry's API (RFC 8288); undefined: nothing. */
function nextPage(link: string | undefined, page: URL): string | undefined {
  const [, target] = /^\s*<([^>]*)>\s*;\s*rel="?next"?/i.exec(link ?? '') ?? []
  if (target === undefined || !URL.canParse(target, page)) return undefined
  const next = new URL(target, page)
  return next.origin === page.origin && next.pathname === page.pathname
    ? `tags/list${next.search}`
    : undefined
}

function repositoryKey(url: URL): string {
  const [, repository = ''] = /^\/v2\/(.+)\/(?:manifests|blobs|tags)\//.exec(url.pathname) ?? []
  return `${url.origin} ${repository}`
}

function sha(bits: string, bytes: Uint8Array): string {
  return createHash(`sha${bits}`).update(bytes).digest('hex')
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes))
  } catch {
    return undefined
  }
}
