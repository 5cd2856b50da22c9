//! The `bellhop` program: hands the command line to [`bellhop::cli`] and exits with its code.

fn main() -> std::process::ExitCode {
    bellhop::cli::main()
}
