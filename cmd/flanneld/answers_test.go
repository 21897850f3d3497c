package main

import (
	"encoding/json"
	"testing"
)

func TestTheHealthPortShowsNoKeys(t *testing.T) {
	for config, want := range map[string]string{
		`{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard","PSK":"s3same"}}`:                `{"Backend":{"PSK":"REDACTED","Type":"wireguard"},"Network":"10.5.0.0/16"}`,
		`{"Backend":{"psk":["s3same"],"Port":8472,"PostStartupCommand":"curl -u a:b"},"X":null}`: `{"Backend":{"Port":8472,"PostStartupCommand":"REDACTED","psk":"REDACTED"},"X":null}`,
		`no JSON`: ``,
		``:        ``,
	} {
		if got := string(withoutSecrets(json.RawMessage(config))); got != want {
			t.Errorf("%s: got %s, want %s", config, got, want)
		}
	}
}
