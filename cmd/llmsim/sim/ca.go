package sim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Hosts are the names the leaf certificate is valid for, beside localhost and the
// loopback addresses: those that unmodified clients dial by default.
var Hosts = []string{
	"localhost", "llmsim.test", "*.llmsim.test",
	"api.openai.com", "*.openai.azure.com", "chatgpt.com", "api.anthropic.com",
	"generativelanguage.googleapis.com", "*.googleapis.com", "*.amazonaws.com",
	"bedrock-runtime.us-east-1.amazonaws.com", "api.cohere.com", "api.mistral.ai",
	"api.groq.com", "api.x.ai", "api.deepseek.com", "openrouter.ai", "api.together.xyz",
	"api.perplexity.ai",
}

// authority is a certificate authority of this simulator's own and one leaf by it.
type authority struct {
	path string // of the CA certificate, PEM
	leaf tls.Certificate
}

// newAuthority makes a CA and a leaf and writes ca.pem, leaf.pem and leaf.key into
// dir. kind is "ecdsa" or "rsa".
func newAuthority(dir, kind string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	now := time.Now()
	caKey, err := newKey(kind)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	ca := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "llmsim test CA"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	key, err := newKey(kind)
	if err != nil {
		return nil, fmt.Errorf("make leaf key: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 6, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    Hosts,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("make leaf: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("marshal leaf key: %w", err)
	}
	a := &authority{path: filepath.Join(dir, "ca.pem")}
	for _, f := range []struct {
		name, kind string
		der        []byte
		mode       os.FileMode
	}{
		{"ca.pem", "CERTIFICATE", caDER, 0o644},
		{"leaf.pem", "CERTIFICATE", leafDER, 0o644},
		{"leaf.key", "PRIVATE KEY", keyDER, 0o600},
	} {
		b := pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der})
		if err := os.WriteFile(filepath.Join(dir, f.name), b, f.mode); err != nil {
			return nil, err
		}
	}
	a.leaf = tls.Certificate{Certificate: [][]byte{leafDER, caDER}, PrivateKey: key}
	return a, nil
}

func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "", "ecdsa":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa":
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return nil, fmt.Errorf("key kind %q, want ecdsa or rsa", kind)
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n
}
