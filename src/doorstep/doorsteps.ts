/** The four doorsteps of a server, and the certificates that two of them show. */
import { type CertificateFiles, Certificates, type Credentials } from './certificates.ts'
import { type ClientCerts, Doorstep, type DoorstepPlan, type TlsSide } from './doorstep.ts'

export interface DoorstepsConfig {
  /** Undefined: there is no TLS. */
  readonly rsyncFiles: CertificateFiles | undefined
  readonly httpFiles: CertificateFiles | undefined
  readonly clientCerts: { readonly rsync: ClientCerts; readonly http: ClientCerts }
  readonly devices: Readonly<Record<string, string>> | undefined
  isProxy(address: string | undefined): boolean
}

export interface DoorstepsEvents {
  /** Told once why files that changed are not used. */
  onProblem(problem: string): void
  /** Told what is shown from now on. */
  onCertificate(file: string, credentials: Credentials): void
}

type Name = 'rsync' | 'rsyncTls' | 'http' | 'https'

export class Doorsteps {
  readonly rsync: Doorstep
  readonly rsyncTls: Doorstep
  readonly http: Doorstep
  readonly https: Doorstep
  readonly #events: DoorstepsEvents
  #plans: Record<Name, DoorstepPlan>

  /** @throws ConfigError for files that can't be used. */
  constructor(config: DoorstepsConfig, events: DoorstepsEvents) {
    this.#events = events
    this.#plans = this.#planFor(config)
    this.rsync = new Doorstep(this.#plans.rsync)
    this.rsyncTls = new Doorstep(this.#plans.rsyncTls)
    this.http = new Doorstep(this.#plans.http)
    this.https = new Doorstep(this.#plans.https, 'http/1.1')
  }

  /**
   * Reads what another configuration names. @returns what makes it hold for connections that come from then on.
   * @throws ConfigError with nothing changed.
   */
  prepare(config: DoorstepsConfig): () => void {
    const plans = this.#planFor(config)
    // A door that speaks TLS never stops to, whatever the configuration says: closing it takes a restart.
    plans.rsyncTls = { ...plans.rsyncTls, tls: plans.rsyncTls.tls ?? this.#plans.rsyncTls.tls }
    plans.https = { ...plans.https, tls: plans.https.tls ?? this.#plans.https.tls }
    return () => {
      this.#plans = plans
      for (const name of ['rsync', 'rsyncTls', 'http', 'https'] as const) this[name].change(plans[name])
    }
  }

  #planFor(config: DoorstepsConfig): Record<Name, DoorstepPlan> {
    const { rsyncFiles, httpFiles, clientCerts, devices, isProxy } = config
    const forRsync = this.#certificates(rsyncFiles)
    const forHttp = httpFiles === rsyncFiles ? forRsync : this.#certificates(httpFiles)
    const side = (certificates: Certificates | undefined, certs: ClientCerts): TlsSide | undefined =>
      certificates && { certificates, clientCerts: certs, devices }
    return {
      rsync: { isProxy, tls: undefined },
      rsyncTls: { isProxy, tls: side(forRsync, clientCerts.rsync) },
      http: { isProxy, tls: undefined },
      https: { isProxy, tls: side(forHttp, clientCerts.http) },
    }
  }

  #certificates(files: CertificateFiles | undefined): Certificates | undefined {
    if (!files) return undefined
    const { onProblem, onCertificate } = this.#events
    const certificates = new Certificates(files, onProblem, (credentials) =>
      onCertificate(files.cert, credentials),
    )
    onCertificate(files.cert, certificates.current)
    return certificates
  }
}
