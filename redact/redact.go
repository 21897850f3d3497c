// Package redact hides secrets in what is shown to people. It holds the only list of the names that secrets go by.
package redact

import (
	"encoding/json"
	"regexp"
)

// Mark is shown instead of a secret.
const Mark = "REDACTED"

// names are the parts of names that secrets go by: in the options of backends, in variables, flags and the output of
// programs.
const names = `psk|preshared_?key|private_?key|passw(?:or)?d|secret|token`

var (
	// option matches options of backends that are not for everybody. Commands may contain secrets.
	option = regexp.MustCompile(`(?i)command|private|` + names)
	// object matches a secret string of a JSON object.
	object = regexp.MustCompile(`(?i)("[a-z_-]*(?:` + names + `)[a-z_-]*"\s*:\s*)"(?:[^"\\]|\\.)*"`)
	// texts match a name and the secret that follows it, and a user in a URL.
	texts = []*regexp.Regexp{
		regexp.MustCompile(`(?i)((?:` + names + `|username)"?\s*[=:]\s*"?)[^\s"',}]+`),
		regexp.MustCompile(`(?i)(-etcd-(?:password|username)[= ])\S+`),
		regexp.MustCompile(`(://)[^/\s@"]+(@)`),
		regexp.MustCompile(`(flt1\.[a-z2-7]+\.)[a-z2-7.]+`), // a token to join a store, but for its name
	}
)

// Text hides secrets in a text of any kind, and leaves all else as it is.
func Text(text []byte) []byte {
	text = object.ReplaceAll(text, []byte(`${1}"`+Mark+`"`))
	for _, r := range texts {
		text = r.ReplaceAll(text, []byte("${1}"+Mark+"${2}"))
	}
	return text
}

// Config returns a network configuration for whoever may read it: without secrets, and without the commands of
// backends. It returns nil for what is not JSON.
func Config(config json.RawMessage) json.RawMessage {
	var v any
	if json.Unmarshal(config, &v) != nil {
		return nil
	}
	text, err := json.Marshal(hide(v))
	if err != nil {
		return nil
	}
	return text
}

func hide(v any) any {
	fields, ok := v.(map[string]any)
	if !ok {
		return v
	}
	for name, value := range fields {
		if fields[name] = hide(value); option.MatchString(name) {
			fields[name] = Mark
		}
	}
	return fields
}
