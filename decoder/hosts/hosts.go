// Package hosts is the table of the hosts of models: whose they are, and in what their
// paths differ. What a call is follows from its path and body, so a host that is not
// here, a private gateway say, is decoded all the same; only its provider is not known.
package hosts

import "strings"

// Host is one row.
type Host struct {
	suffix string // of the host's name, without the port
	path   string // prefix of the path, where one host is several providers
	// Provider is gen_ai.provider.name: the conventions' value where they have one, else
	// the name in the price book.
	Provider string
	// Chat is one more path of OpenAI's chat completions.
	Chat string
}

// table is in order of precedence.
var table = []Host{
	{suffix: "api.openai.com", Provider: "openai"},
	{suffix: "chatgpt.com", path: "/backend-api/", Provider: "openai"},
	{suffix: ".openai.azure.com", Provider: "azure.ai.openai"},
	{suffix: ".cognitiveservices.azure.com", Provider: "azure.ai.openai"},
	{suffix: ".services.ai.azure.com", path: "/models/", Provider: "azure.ai.inference"},
	{suffix: ".services.ai.azure.com", Provider: "azure.ai.openai"},
	{suffix: ".models.ai.azure.com", Provider: "azure.ai.inference"},
	{suffix: "models.inference.ai.azure.com", Provider: "azure.ai.inference"},
	{suffix: "api.groq.com", Provider: "groq"},
	{suffix: "api.mistral.ai", Provider: "mistral_ai"},
	{suffix: "codestral.mistral.ai", Provider: "mistral_ai"},
	{suffix: "api.deepseek.com", Provider: "deepseek"},
	{suffix: "api.x.ai", Provider: "x_ai"},
	{suffix: "api.perplexity.ai", Provider: "perplexity"},
	{suffix: "api.anthropic.com", Provider: "anthropic"},
	{suffix: "generativelanguage.googleapis.com", Provider: "gcp.gemini"},
	{suffix: "aiplatform.googleapis.com", Provider: "gcp.vertex_ai"},
	{suffix: ".api.aws", Provider: "aws.bedrock"},
	{suffix: ".amazonaws.com", path: "/openai/v1/", Provider: "aws.bedrock"}, // bedrock-runtime,
	{suffix: ".ml.cloud.ibm.com", Provider: "ibm.watsonx.ai"},
	{suffix: "api.cohere.com", Provider: "cohere"},
	{suffix: "api.cohere.ai", Provider: "cohere"},
	{suffix: "api.moonshot.ai", Provider: "moonshot_ai"},
	{suffix: "api.moonshot.cn", Provider: "moonshot_ai"},
	// Not in the conventions: the names of the price book.
	{suffix: "openrouter.ai", Provider: "openrouter"},
	{suffix: "api.together.xyz", Provider: "together"},
	{suffix: "api.together.ai", Provider: "together"},
	{suffix: "api.fireworks.ai", Provider: "fireworks"},
	{suffix: "api.cerebras.ai", Provider: "cerebras"},
	{suffix: "api.z.ai", Provider: "zai"},
	{suffix: "open.bigmodel.cn", Provider: "zhipuai"},
	{suffix: "dashscope.aliyuncs.com", Provider: "qwen"},
	{suffix: "dashscope-intl.aliyuncs.com", Provider: "qwen"},
	{suffix: "dashscope-us.aliyuncs.com", Provider: "qwen"},
	{suffix: "api.minimax.io", Provider: "minimax"},
	{suffix: "api.minimaxi.com", Provider: "minimax"},
	{suffix: "qianfan.baidubce.com", Provider: "baidu"},
	{suffix: "aip.baidubce.com", Provider: "baidu"},
	{suffix: ".volces.com", Provider: "volcengine"},
	{suffix: "api.writer.com", Provider: "writer", Chat: "/v1/chat"},
	{suffix: "router.huggingface.co", Provider: "huggingface"},
	{suffix: ".huggingface.cloud", Provider: "huggingface"},
	{suffix: ".databricks.com", Provider: "databricks"},
	{suffix: ".azuredatabricks.net", Provider: "databricks"},
	{suffix: ".snowflakecomputing.com", Provider: "snowflake"},
	{suffix: "api.cloudflare.com", Provider: "cloudflare"},
	{suffix: "gateway.ai.cloudflare.com", Provider: "cloudflare"},
	{suffix: "api.sambanova.ai", Provider: "sambanova"},
	{suffix: "inference.heroku.com", Provider: "heroku"},
	{suffix: "api.studio.nebius.ai", Provider: "nebius"},
	{suffix: "api.studio.nebius.com", Provider: "nebius"},
	{suffix: "api.tokenfactory.nebius.com", Provider: "nebius"},
	{suffix: "api.novita.ai", Provider: "novita"},
	{suffix: "api.venice.ai", Provider: "venice"},
	{suffix: "api.doubleword.ai", Provider: "doubleword"},
	{suffix: "api.avian.io", Provider: "avian"},
	{suffix: ".crusoecloud.com", Provider: "crusoe"},
	{suffix: "ai-gateway.vercel.sh", Provider: "vercel"},
	{suffix: "api.githubcopilot.com", Provider: "github_copilot"},
	{suffix: ".githubcopilot.com", Provider: "github_copilot"},
	{suffix: "models.github.ai", Provider: "github_models"},
	{suffix: "api.voyageai.com", Provider: "voyageai"},
	{suffix: "api.jina.ai", Provider: "jina"},
	{suffix: "api.deepinfra.com", Provider: "deepinfra"},
	{suffix: "api.hyperbolic.xyz", Provider: "hyperbolic"},
	{suffix: "integrate.api.nvidia.com", Provider: "nvidia"},
	{suffix: ".cloud.ovh.net", Provider: "ovhcloud"},
	{suffix: ".modal.run", Provider: "modal"},
	{suffix: ".modal.direct", Provider: "modal"},
	{suffix: "ollama.com", Provider: "ollama"},
}

// Lookup finds the row of a host, with or without its port, and a path; nil when the
// host is none of these.
func Lookup(name, path string) *Host {
	name, _, _ = strings.Cut(name, ":")
	for i := range table {
		h := &table[i]
		if matches(name, h.suffix) && strings.HasPrefix(path, h.path) {
			return h
		}
	}
	return nil
}

// matches reports whether name is suffix or, at a dot or behind a region's dash
// ("europe-west4-aiplatform.googleapis.com"), ends with it.
func matches(name, suffix string) bool {
	if !strings.HasSuffix(name, suffix) {
		return false
	}
	if len(name) == len(suffix) || suffix[0] == '.' {
		return true
	}
	c := name[len(name)-len(suffix)-1]
	return c == '.' || c == '-'
}
