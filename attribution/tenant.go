package attribution

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
)

// other stands for the names that a bound had no room for.
const other = "other"

// distinct bounds how many different names come in from outside.
type distinct struct {
	mu    sync.Mutex
	max   int
	names map[string]struct{}
}

func newDistinct(max int) *distinct {
	return &distinct{max: max, names: make(map[string]struct{})}
}

// admit returns name, or "other" and that it is capped when there are as many already.
func (d *distinct) admit(name string) (admitted string, capped bool) {
	if name == "" {
		return "", false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.names[name]; ok {
		return name, false
	}
	if len(d.names) >= d.max {
		return other, true
	}
	d.names[name] = struct{}{}
	return name, false
}

// hash returns HMAC-SHA256 of the value under the key, its first 16 bytes as hex:
// the same value is always the same, and cannot be guessed without the key. The
// domain keeps a tenant's and a session's equal values apart.
func hash(key []byte, domain, value string) string {
	if value == "" {
		return ""
	}
	m := hmac.New(sha256.New, key)
	m.Write([]byte(domain))
	m.Write([]byte{0})
	m.Write([]byte(value))
	return hex.EncodeToString(m.Sum(nil)[:16])
}

// tenantSource is one entry of Tenant.From.
type tenantSource struct {
	kind string // namespace, label, header, baggage, metadata, api_key
	key  string
}

func parseTenantSource(s string) (tenantSource, error) {
	kind, key, ok := strings.Cut(s, ":")
	switch kind {
	case "namespace", "api_key":
		if !ok {
			return tenantSource{kind: kind}, nil
		}
	case "label":
		if isLabelKey(key) {
			return tenantSource{kind, key}, nil
		}
		return tenantSource{}, fmt.Errorf("want label:KEY with a label's key")
	case "header":
		if why := BadHeader(key); why != "" {
			return tenantSource{}, fmt.Errorf("%s", why)
		}
		return tenantSource{kind, strings.ToLower(key)}, nil
	case "baggage", "metadata":
		if key != "" {
			return tenantSource{kind, key}, nil
		}
	}
	return tenantSource{}, fmt.Errorf("want namespace, label:KEY, header:NAME, baggage:KEY, metadata:KEY or api_key")
}
