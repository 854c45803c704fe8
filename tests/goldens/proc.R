# Writes proc.json, the golden of tests/metrics/test_goldens.py: pROC's AUCs, their variances and tests, R's own shares.
# Debian 12: apt-get install r-base-core r-cran-proc; Rscript proc.R > proc.json
suppressMessages(library(pROC))

numbers <- function(x) paste0("[", paste(formatC(x, digits = 15, format = "g"), collapse = ", "), "]")
fields <- function(...) {
  values <- list(...)
  paste0("{", paste0('"', names(values), '": ', values, collapse = ", "), "}")
}

cohort <- function(seed, glioma, encephalitis, signal, digits) {
  set.seed(seed)
  label <- rep(1:0, c(glioma, encephalitis))
  hard <- rnorm(length(label))
  scores <- lapply(signal, function(s) round(plogis(s * (2 * label - 1) + hard + rnorm(length(label))), digits))
  rocs <- lapply(scores, function(score) roc(label, score, levels = c(0, 1), direction = "<", quiet = TRUE))
  test <- roc.test(rocs[[1]], rocs[[2]], method = "delong", paired = TRUE)
  fields(
    label = numbers(label), first = numbers(scores[[1]]), second = numbers(scores[[2]]),
    auc = numbers(sapply(rocs, auc)), variance = numbers(sapply(rocs, var, method = "delong")),
    covariance = numbers(cov(rocs[[1]], rocs[[2]], method = "delong")),
    z = numbers(test$statistic), p = numbers(test$p.value), interval = numbers(test$conf.int)
  )
}

share <- function(hits, total) {  # Wilson's interval is that of the score test without continuity correction
  ends <- suppressWarnings(prop.test(hits, total, correct = FALSE))$conf.int
  fields(hits = hits, total = total, interval = numbers(ends))
}

cohorts <- c(cohort(1, 12, 15, c(1, 0.6), 2), cohort(2, 5, 30, c(0.8, 1.2), 1), cohort(3, 40, 60, c(1.5, 1.4), 4))
shares <- c(share(0, 4), share(3, 7), share(19, 20), share(118, 175))
cat(fields(
  made_by = paste0('"', R.version.string, ", pROC ", packageVersion("pROC"), '"'),
  cohorts = paste0("[\n", paste(cohorts, collapse = ",\n"), "]"),
  shares = paste0("[\n", paste(shares, collapse = ",\n"), "]")
), "\n", sep = "")
