package hosts

import "testing"

func TestLookup(t *testing.T) {
	for url, want := range map[[2]string]string{
		{"api.openai.com", "/v1/chat/completions"}:                   "openai",
		{"eu.api.openai.com", "/v1/responses"}:                       "openai",
		{"notapi.openai.com.example", "/"}:                           "",
		{"evilapi.openai.com", "/"}:                                  "",
		{"europe-west4-aiplatform.googleapis.com:443", "/v1/x"}:      "gcp.vertex_ai",
		{"res.services.ai.azure.com", "/models/chat/completions"}:    "azure.ai.inference",
		{"res.services.ai.azure.com", "/openai/v1/chat/completions"}: "azure.ai.openai",
		{"bedrock-mantle.us-east-1.api.aws", "/v1/responses"}:        "aws.bedrock",
		{"localhost:8000", "/v1/chat/completions"}:                   "",
		{"chatgpt.com", "/backend-api/codex/responses"}:              "openai",
		{"chatgpt.com", "/other"}:                                    "",
	} {
		got := ""
		if h := Lookup(url[0], url[1]); h != nil {
			got = h.Provider
		}
		if got != want {
			t.Errorf("%s%s: %q, want %q", url[0], url[1], got, want)
		}
	}
}
