// Encrypts a file in pieces with AES-GCM and decrypts it again:
// the assembly that TLS uses, and no TLS.
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'

const [file] = process.argv.slice(2)
const text = Buffer.from('POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}'.repeat(2000))
// The last is what a TLS record of that length would authenticate.
const header = (n) => Buffer.from([0x17, 3, 3, (n + 16) >> 8, (n + 16) & 255])
for (const [cipher, bytes] of [['aes-128-gcm', 16], ['aes-256-gcm', 32]]) {
  for (const length of [1, 5, 15, 16, 17, 100, 1000, 16000]) {
    for (const aad of [Buffer.alloc(0), randomBytes(5), randomBytes(13), header(length)]) {
      const key = randomBytes(bytes), iv = randomBytes(12), plain = text.subarray(0, length)
      const sealing = createCipheriv(cipher, key, iv, { authTagLength: 16 })
      if (aad.length) sealing.setAAD(aad)
      const sealed = Buffer.concat([sealing.update(plain), sealing.final(), sealing.getAuthTag()])
      writeFileSync(file, sealed)
      const read = readFileSync(file)
      const opening = createDecipheriv(cipher, key, iv, { authTagLength: 16 })
      if (aad.length) opening.setAAD(aad)
      opening.setAuthTag(read.subarray(length))
      const opened = Buffer.concat([opening.update(read.subarray(0, length)), opening.final()])
      if (!opened.equals(plain)) throw new Error(`${cipher} of ${length} bytes`)
    }
  }
}
console.log('done')
