"""Rules with the kinds of output that a genrule cannot have."""

def _tree_impl(ctx):
    tree = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run_shell(
        outputs = [tree],
        arguments = [tree.path],
        command = """
cd "$1"
mkdir -p deep/er empty-directory
echo one > one
: > deep/empty-file
printf '#!/bin/sh\\necho ran\\n' > deep/er/program
chmod +x deep/er/program
ln -s ../one deep/link
long=$(printf 'n%.0s' $(seq 200))
echo long > "deep/$long"
""",
    )
    return [DefaultInfo(files = depset([tree]))]

tree = rule(implementation = _tree_impl)

def _named_tree_impl(ctx):
    tree = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run_shell(
        outputs = [tree],
        arguments = [tree.path],
        command = "echo 'grüße' > \"$1/grüße-文件.txt\"",
    )
    return [DefaultInfo(files = depset([tree]))]

named_tree = rule(implementation = _named_tree_impl)

def _listing_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    tree = ctx.files.tree[0]
    ctx.actions.run_shell(
        inputs = [tree],
        outputs = [out],
        arguments = [tree.path, out.path],
        command = """
out="$PWD/$2"
cd "$1"
{
  find -L . -type f | sort | sed 's/n\\{200\\}/LONG/'
  cat deep/link
  deep/er/program
} > "$out"
""",
    )
    return [DefaultInfo(files = depset([out]))]

listing = rule(
    implementation = _listing_impl,
    attrs = {"tree": attr.label()},
)

def _alias_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.symlink(output = out, target_file = ctx.file.to)
    return [DefaultInfo(files = depset([out]))]

alias_of = rule(
    implementation = _alias_impl,
    attrs = {"to": attr.label(allow_single_file = True)},
)
