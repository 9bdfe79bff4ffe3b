package sim

import (
	"bytes"
	"encoding/json"
)

// object is a JSON object whose keys are written in their alphabetical order.
type object = map[string]any

// compact is v as JSON on one line, with markup left as it is.
func compact(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // the types here all have a JSON form
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// indented is v as JSON over several lines, as OpenAI and Google write it.
func indented(v any) []byte {
	var b bytes.Buffer
	if err := json.Indent(&b, compact(v), "", "  "); err != nil {
		panic(err)
	}
	b.WriteByte('\n')
	return b.Bytes()
}
