package manual

import (
	"fmt"
	"strings"

	"flanneld/options"
)

// Bash renders the completion for bash.
func Bash() string {
	var flags, values strings.Builder
	each(func(f options.Flag) {
		fmt.Fprintf(&flags, " -%s", f.Name)
		reply := ""
		switch {
		case isFile(f):
			reply = "compgen -f"
		case isFolder(f):
			reply = "compgen -d"
		case f.Choices != nil:
			reply = fmt.Sprintf("compgen -W '%s'", strings.Join(f.Choices, " "))
		case f.Arg == "":
			return
		default:
			fmt.Fprintf(&values, "\t-%s | --%s) return ;;\n", f.Name, f.Name)
			return
		}
		fmt.Fprintf(&values, "\t-%s | --%s) mapfile -t COMPREPLY < <(%s -- \"$word\"); return ;;\n", f.Name, f.Name, reply)
	})
	return fmt.Sprintf(`# bash completion for flanneld
_flanneld() {
	local word=${COMP_WORDS[COMP_CWORD]} last=${COMP_WORDS[COMP_CWORD-1]}
	case $last in
%s	esac
	mapfile -t COMPREPLY < <(compgen -W '%s' -- "$word")
}
complete -F _flanneld flanneld
`, values.String(), strings.TrimSpace(flags.String()))
}

// Zsh renders the completion for zsh.
func Zsh() string {
	var b strings.Builder
	b.WriteString("#compdef flanneld\n_arguments \\\n")
	each(func(f options.Flag) {
		text := strings.NewReplacer("'", `'\''`, "[", `\[`, "]", `\]`, ":", `\:`).Replace(f.Text)
		action := ""
		switch {
		case isFile(f):
			action = ":file:_files"
		case isFolder(f):
			action = ":folder:_files -/"
		case f.Choices != nil:
			action = ":value:(" + strings.Join(f.Choices, " ") + ")"
		case f.Arg != "":
			action = ":" + strings.ReplaceAll(f.Arg, ":", `\:`) + ":"
		}
		fmt.Fprintf(&b, "\t'-%s[%s]%s' \\\n", f.Name, text, action)
	})
	return strings.TrimSuffix(b.String(), " \\\n") + "\n"
}

// Fish renders the completion for fish.
func Fish() string {
	var b strings.Builder
	b.WriteString("# fish completion for flanneld\n")
	each(func(f options.Flag) {
		value := " -x"
		switch {
		case isFile(f):
			value = " -r -F"
		case isFolder(f):
			value = " -x -a '(__fish_complete_directories)'"
		case f.Choices != nil:
			value = " -x -a '" + strings.Join(f.Choices, " ") + "'"
		case f.Arg == "":
			value = " -f"
		}
		text := strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(f.Text)
		fmt.Fprintf(&b, "complete -c flanneld -o %s%s -d '%s'\n", f.Name, value, text)
	})
	return b.String()
}
