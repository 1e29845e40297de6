IF OBJECT_ID('[stg].[headwater_stage_fact_orders]') IS NOT NULL DROP TABLE [stg].[headwater_stage_fact_orders];
GO
CREATE TABLE [stg].[headwater_stage_fact_orders] (
  [order_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [order_month] DATE NULL,
  [user_key] BIGINT NULL,
  [location_key] BIGINT NULL,
  [store_key] BIGINT NULL,
  [time_key] BIGINT NULL,
  [customer_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [address_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [store_id] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [channel] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [status] VARCHAR(80) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [status_at] DATETIME2(6) NULL,
  [placed_at] DATETIME2(6) NULL,
  [cancelled_at] DATETIME2(6) NULL,
  [returned_at] DATETIME2(6) NULL,
  [item_count] INT NULL,
  [subtotal] DECIMAL(12,2) NULL,
  [shipping_fee] DECIMAL(12,2) NULL,
  [total] DECIMAL(12,2) NULL,
  [net_total] DECIMAL(12,2) NULL,
  [currency] VARCHAR(12) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [reporting_currency] VARCHAR(12) COLLATE Latin1_General_100_BIN2_UTF8 NULL,
  [reporting_rate] DECIMAL(18,8) NULL,
  [reporting_total] DECIMAL(18,2) NULL,
  [reporting_net_total] DECIMAL(18,2) NULL,
  [_deleted] BIT NOT NULL
)
WITH (HEAP, DISTRIBUTION = HASH ([order_id]));
GO
COPY INTO [stg].[headwater_stage_fact_orders]
FROM 'https://example.dfs.core.windows.net/staging/headwater/headwater_stage_fact_orders/*.parquet'
WITH (FILE_TYPE = 'PARQUET', CREDENTIAL = (IDENTITY = 'Managed Identity'));
GO
BEGIN TRANSACTION;
GO
DELETE FROM [fact].[fact_orders] WHERE EXISTS (SELECT 1 FROM [stg].[headwater_stage_fact_orders] s WHERE s.[order_id] = [fact].[fact_orders].[order_id] AND s.[_deleted] = 1);
GO
DELETE FROM [fact].[fact_orders] WHERE EXISTS (SELECT 1 FROM [stg].[headwater_stage_fact_orders] AS s WHERE s.[order_id] = [fact].[fact_orders].[order_id]);
INSERT INTO [fact].[fact_orders] ([order_id], [order_month], [user_key], [location_key], [store_key], [time_key], [customer_id], [address_id], [store_id], [channel], [status], [status_at], [placed_at], [cancelled_at], [returned_at], [item_count], [subtotal], [shipping_fee], [total], [net_total], [currency], [reporting_currency], [reporting_rate], [reporting_total], [reporting_net_total]) SELECT [order_id], [order_month], [user_key], [location_key], [store_key], [time_key], [customer_id], [address_id], [store_id], [channel], [status], [status_at], [placed_at], [cancelled_at], [returned_at], [item_count], [subtotal], [shipping_fee], [total], [net_total], [currency], [reporting_currency], [reporting_rate], [reporting_total], [reporting_net_total] FROM [stg].[headwater_stage_fact_orders] WHERE [_deleted] = 0;
GO
SELECT COUNT_BIG(*), coalesce(sum(CONVERT(BIGINT, SUBSTRING(HASHBYTES('MD5', COALESCE([order_id], CHAR(30))), 1, 4))), 0), coalesce(sum(CONVERT(BIGINT, SUBSTRING(HASHBYTES('MD5', CONCAT_WS(CHAR(31), COALESCE([order_id], CHAR(30)), COALESCE(CONVERT(VARCHAR(10), [order_month], 23), CHAR(30)), COALESCE(CAST([user_key] AS VARCHAR(40)), CHAR(30)), COALESCE(CAST([location_key] AS VARCHAR(40)), CHAR(30)), COALESCE(CAST([store_key] AS VARCHAR(40)), CHAR(30)), COALESCE(CAST([time_key] AS VARCHAR(40)), CHAR(30)), COALESCE([customer_id], CHAR(30)), COALESCE([address_id], CHAR(30)), COALESCE([store_id], CHAR(30)), COALESCE([channel], CHAR(30)), COALESCE([status], CHAR(30)), COALESCE(CONVERT(VARCHAR(26), [status_at], 121), CHAR(30)), COALESCE(CONVERT(VARCHAR(26), [placed_at], 121), CHAR(30)), COALESCE(CONVERT(VARCHAR(26), [cancelled_at], 121), CHAR(30)), COALESCE(CONVERT(VARCHAR(26), [returned_at], 121), CHAR(30)), COALESCE(CAST([item_count] AS VARCHAR(40)), CHAR(30)), COALESCE(CAST([subtotal] AS VARCHAR(40)), CHAR(30)), COALESCE(CAST([shipping_fee] AS VARCHAR(40)), CHAR(30)), COALESCE(CAST([total] AS VARCHAR(40)), CHAR(30)), COALESCE(CAST([net_total] AS VARCHAR(40)), CHAR(30)), COALESCE([currency], CHAR(30)), COALESCE([reporting_currency], CHAR(30)), COALESCE(CAST([reporting_rate] AS VARCHAR(40)), CHAR(30)), COALESCE(CAST([reporting_total] AS VARCHAR(40)), CHAR(30)), COALESCE(CAST([reporting_net_total] AS VARCHAR(40)), CHAR(30)))), 1, 4))), 0) FROM [fact].[fact_orders];
GO
DELETE FROM [stg].[headwater_publish] WHERE table_name = 'fact_orders';
GO
INSERT INTO [stg].[headwater_publish] VALUES ('fact_orders', 7, 1000, 2, '2026-03-01T12:00:00+00:00');
GO
COMMIT;
GO
IF OBJECT_ID('[stg].[headwater_stage_fact_orders]') IS NOT NULL DROP TABLE [stg].[headwater_stage_fact_orders];
GO
