# Streams one answer: client.pl BASE_URL. What it read is printed.
use strict;
use warnings;
use LWP::UserAgent;
my $body = '{"model":"gpt-4o-mini","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}';
my $ua = LWP::UserAgent->new;
my $req = HTTP::Request->new(POST => "$ARGV[0]/v1/chat/completions", ['Content-Type' => 'application/json'], $body);
my $res = $ua->request($req, sub { print $_[0] });
die $res->status_line unless $res->is_success;
