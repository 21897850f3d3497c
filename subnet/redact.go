package subnet

import "regexp"

var psk = regexp.MustCompile(`(?i)("psk"\s*:\s*)"(?:[^"\\]|\\.)*"`)

// WithoutSecrets returns the text of a network configuration as it may be shown: without a preshared key of WireGuard.
func WithoutSecrets(config []byte) []byte { return psk.ReplaceAll(config, []byte(`$1"REDACTED"`)) }
