package subnet

import "strings"

// Brief returns a text of others as it may be repeated in logs and answers: no more than its first bytes, with a sign
// that there was more.
func Brief(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + " …"
}
