<?php // Streams one answer: client.php BASE_URL. What it read is printed.
$body = ['model' => 'gpt-4o-mini', 'stream' => true, 'stream_options' => ['include_usage' => true], 'messages' => [['role' => 'user', 'content' => 'hi']]];
$context = stream_context_create([
    'http' => ['method' => 'POST', 'protocol_version' => 1.1, 'header' => "Content-Type: application/json\r\nConnection: close\r\n", 'content' => json_encode($body)],
    'ssl' => ['cafile' => getenv('SSL_CERT_FILE')],
]);
$f = fopen($argv[1] . '/v1/chat/completions', 'r', false, $context);
while (!feof($f)) echo fread($f, 8192);
