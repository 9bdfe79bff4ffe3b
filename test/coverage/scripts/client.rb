# Streams one answer: client.rb BASE_URL. What it read is printed.
require "net/http"
require "json"
uri = URI(ARGV[0] + "/v1/chat/completions")
body = { model: "gpt-4o-mini", stream: true, stream_options: { include_usage: true }, messages: [{ role: "user", content: "hi" }] }
Net::HTTP.start(uri.host, uri.port, use_ssl: true, ca_file: ENV["SSL_CERT_FILE"]) do |http|
  http.request(Net::HTTP::Post.new(uri, "Content-Type" => "application/json"), body.to_json) { |r| r.read_body { |part| print part } }
end
