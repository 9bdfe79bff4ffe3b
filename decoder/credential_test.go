package decoder

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/flow"
)

// TestCredential: what is made with one key has one hash, however it is signed and
// wherever the key stands, and what is made with another has another.
func TestCredential(t *testing.T) {
	hash := func(path string, headers ...string) []byte {
		t.Helper()
		r := newRig(t, func(c *Config) { c.KeySecret = []byte("k") })
		r.number = 1
		r.push(flow.Write, post(path, askUnary, headers...))
		r.push(flow.Read, reply(`{"text":"hi"}`))
		c := r.one()
		if all := fmt.Sprintf("%+v", *c); strings.Contains(all, "KEY") || strings.Contains(all, "signed") {
			t.Errorf("the key is kept: %s", all)
		}
		return c.APIKey
	}
	aws := func(scheme, id, date, signature string) string {
		return "Authorization: " + scheme + " Credential=" + id + "/" + date + "/us-east-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + signature
	}
	query := func(id, date, signature string) string {
		return "/echo?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + id + "%2F" + date + "%2Fus-east-1%2Fbedrock%2Faws4_request&X-Amz-Signature=" + signature
	}
	ofOne, ofOther := hash("/echo", "X-Api-Key: KEY1"), hash("/echo", "X-Api-Key: KEY2")
	if len(ofOne) != 32 || bytes.Equal(ofOne, ofOther) {
		t.Fatalf("two keys: %x, %x", ofOne, ofOther)
	}
	for _, c := range []struct {
		name    string
		path    string
		headers []string
		want    []byte
	}{
		{"bearer", "/echo", []string{"Authorization: bearer KEY1"}, ofOne},
		{"Azure's header", "/echo", []string{"Api-Key: KEY1"}, ofOne},
		{"Azure's gateway", "/echo", []string{"Ocp-Apim-Subscription-Key: KEY1"}, ofOne},
		{"Gemini's header", "/echo", []string{"X-Goog-Api-Key: KEY1"}, ofOne},
		{"Gemini's query", "/echo?alt=sse&key=KEY1", nil, ofOne},
		{"Gemini's query, another key", "/echo?alt=sse&key=KEY2", nil, ofOther},
		{"Azure's query", "/echo?api-version=1&api-key=KEY1", nil, ofOne},
		{"Azure's gateway's query", "/echo?subscription-key=KEY1", nil, ofOne},
		{"a header goes first", "/echo?key=KEY2", []string{"X-Goog-Api-Key: KEY1"}, ofOne},
		{"signed", "/echo", []string{aws("AWS4-HMAC-SHA256", "KEY1", "20260801", "signed1")}, ofOne},
		{"signed again", "/echo", []string{aws("AWS4-HMAC-SHA256", "KEY1", "20260802", "signed2")}, ofOne},
		{"signed with another", "/echo", []string{aws("AWS4-HMAC-SHA256", "KEY2", "20260801", "signed1")}, ofOther},
		{"signed for many regions", "/echo", []string{aws("AWS4-ECDSA-P256-SHA256", "KEY1", "20260801", "signed3")}, ofOne},
		{"signed in the query", query("KEY1", "20260801", "signed4"), nil, ofOne},
		{"signed in the query with another", query("KEY2", "20260801", "signed4"), nil, ofOther},
		{"a torn signature", "/echo", []string{"Authorization: AWS4-HMAC-SHA256 Signature=signed5"}, nil},
		{"none", "/echo?alt=sse", nil, nil},
	} {
		if got := hash(c.path, c.headers...); !bytes.Equal(got, c.want) {
			t.Errorf("%s: %x, want %x", c.name, got, c.want)
		}
	}
}
